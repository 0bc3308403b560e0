"""What may happen to a run from outside without ending it at once: signals, failing writes, a reader that goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from nmt_async.display.console import Display
from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.errors import RunFailure


class Interrupted(RunFailure):
    """A signal ended the run, which is saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignals:
    """A context manager that notes SIGINT, SIGTERM and, unless nohup has it ignored, SIGHUP.

    Attributes:
        number: of the latest that came, 0 if none did.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        wanted = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            wanted.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        """Of the latest."""
        return signal.Signals(self.number).name


class MayFail:
    """Call it with what is to be done.

    Args:
        warn: takes a sentence when something begins to fail.
        say: takes a sentence when it works again.
    """

    def __init__(self, warn: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._warn = warn
        self._say = say
        self._failing: set[str] = set()

    def __call__(self, what: str, do: Callable[[], object], hint: Callable[[], str] = lambda: "") -> bool:
        """Whether ``do`` could be done.

        Args:
            what: ``writing the journal``.
            hint: a part of the sentence that says more, such as what to do about it.
        """
        try:
            do()
        except OSError as error:
            if what not in self._failing:
                self._failing.add(what)
                self._warn(f"{what} failed ({error.strerror or error}); {hint()}training goes on.")
            return False
        if what in self._failing:
            self._failing.discard(what)
            self._say(f"{what} works again.")
        return True


class DisconnectableDisplay:
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
