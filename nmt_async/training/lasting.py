"""A display whose reader may go away, as a closed terminal or ``| head`` does: the run outlives it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nmt_async.display.console import Display
from nmt_async.display.reports import RunTitle, TrainReport, ValidReport


class LastingDisplay:
    """Shows through ``display`` until writing fails; from then on nothing is shown, and ``train.log`` tells alone."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._lost = False

    def _show(self, show: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            show()
        except OSError:
            self._lost = True
            # What is still buffered must go somewhere, or the interpreter fails when it ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stderr.fileno())
                os.close(nowhere)

    def __enter__(self) -> Self:
        self._show(self._display.__enter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(lambda: self._display.__exit__(kind, error, trace))

    def begin(self, title: RunTitle) -> None:
        """What is trained, before anything else."""
        self._show(lambda: self._display.begin(title))

    def say(self, text: str) -> None:
        """A sentence for the reader."""
        self._show(lambda: self._display.say(text))

    def warn(self, text: str) -> None:
        """A sentence about a problem that the run survives."""
        self._show(lambda: self._display.warn(text))

    def progress(self, share: float | None, update: int) -> None:
        """How much of the run is done, 0 to 1, None if it has no set end."""
        self._show(lambda: self._display.progress(share, update))

    def trained(self, report: TrainReport) -> None:
        """A stretch of training."""
        self._show(lambda: self._display.trained(report))

    def validated(self, report: ValidReport) -> None:
        """A validation."""
        self._show(lambda: self._display.validated(report))
