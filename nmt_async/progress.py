"""How a long command tells what it is at: a live bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from nmt_async.formatting import clock

Step = Callable[[int, int], None]
"""Called with how much of the stage's total is done, and how many lines (or what is counted) that was."""


class Progress(Protocol):
    """What a long computation reports to."""

    def stage(self, name: str, total: int | None, counted: str = "lines") -> AbstractContextManager[Step]:
        """A stage of the work.

        Args:
            total: in any unit; None where nobody can know.
            counted: what a step counts besides.
        """
        ...

    def note(self, text: str) -> None:
        """One line that the user should see."""
        ...


class SilentProgress:
    """Says nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None, counted: str = "lines") -> Iterator[Step]:  # noqa: ARG002
        yield _ignore

    def note(self, text: str) -> None:
        pass


class PlainProgress:
    """For logs and pipes: one line every ``interval`` seconds and one when a stage ends."""

    def __init__(
        self, stream: TextIO, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._stream = stream
        self._interval = interval
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: int | None, counted: str = "lines") -> Iterator[Step]:
        begin = said = self._clock()
        seen = 0

        def step(done: int, lines: int) -> None:
            nonlocal said, seen
            seen = lines
            now = self._clock()
            if now - said >= self._interval:
                said = now
                share = f", {done / total:.0%}, {clock(round((total - done) / done * (now - begin)))} left" \
                    if total and done else ""  # fmt: skip
                self.note(f"{name}: {lines:,} {counted}, {lines / (now - begin):,.0f} {counted}/s{share}")

        yield step
        seconds = self._clock() - begin
        speed = f": {seen:,} {counted}, {seen / max(seconds, 1e-3):,.0f} {counted}/s" if seen else ""
        self.note(f"{name}{speed}, {seconds:.1f} s")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """A bar for each stage, with lines/s and the time left."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: int | None, counted: str = "lines") -> Iterator[Step]:
        measured = (TaskProgressColumn(), TextColumn("{task.fields[speed]}"), TextColumn("left"), TimeRemainingColumn())
        unmeasured = (TextColumn("{task.fields[speed]}"), TimeElapsedColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), *(measured if total else unmeasured))
        begin = self._clock()
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, speed="")

            def step(done: int, lines: int) -> None:
                speed = lines / max(self._clock() - begin, 1e-3)
                bars.update(task, completed=done, speed=f"{lines:,} {counted}, {speed:,.0f} {counted}/s")

            yield step
            done = total or 1
            bars.update(task, total=done, completed=done)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _ignore(done: int, lines: int) -> None:
    pass


def progress_for(quiet: bool, stream: TextIO | None = None) -> Progress:
    """The progress that suits ``stream`` (by default standard error)."""
    stream = stream or sys.stderr
    if quiet:
        return SilentProgress()
    console = Console(file=stream)
    return TerminalProgress(console) if console.is_terminal else PlainProgress(stream)
