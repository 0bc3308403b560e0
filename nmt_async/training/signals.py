"""What signals mean to a run: the first one ends it at the next update, saved; a second SIGINT ends it at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

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
