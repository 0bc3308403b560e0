"""``watch``: a run followed from its folder alone, on the screen that training has, or line by line."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from rich.console import Console

from nmt_async.display.console import PlainDisplay, machine_text
from nmt_async.display.live import LiveDisplay, able_console
from nmt_async.display.recorded_run import News, RecordedRun
from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.display.screen import render
from nmt_async.display.state import DisplayState, Message
from nmt_async.options import option

INTERVAL = 0.5
"""Seconds between two looks into the folder."""

LAST_MESSAGES = 6
"""Of the messages so far, those that are shown of a run that is not followed (any more)."""


@dataclass(frozen=True)
class WatchOptions:
    """The options of watch."""

    once: bool = option(False, "Print how the run stands, and end.", group="Watching", flags=("--once",))


def watch(options: WatchOptions, folder: Path, out: TextIO, quiet: bool = False) -> None:
    """Shows the run until it has ended: the live screen on a terminal, plain lines elsewhere.

    Raises:
        UserError: ``folder`` is not the folder of a run.
    """
    console = None if quiet else able_console(out)
    watched = WatchedRun(folder)
    if options.once:
        watched.look()
        if console is not None:
            console.print(render(watched.shown()))
        else:
            _show_lines(PlainDisplay(out, quiet), _summary(watched.state))
    elif console is not None:
        _follow_on_screen(watched, console)
    else:
        display = PlainDisplay(out, quiet)
        for news in watched.follow():
            _show_lines(display, news)


class WatchedRun:
    """A run in its folder, and whether somebody trains it.

    Between reports its time goes on as long as a trainer is at it.

    Args:
        folder: of the run.

    Raises:
        UserError: it is not the folder of a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RecordedRun(folder)
        self.state = DisplayState()
        self._reported: float | None = None
        self._said_whose = False

    def look(self) -> list[News]:
        """Reads on; what is new. The state says whether the run has ended."""
        # Asked first: what a trainer wrote before it went is then read for certain.
        trained = is_trained(self.folder)
        first, before = self._reported is None, self.run.state.report
        news = self.run.read()
        now = time.monotonic()
        if first:
            self._reported = now - _age(self.folder / ("metrics.jsonl" if self.run.state.report else "config.yaml"))
        elif self.run.state.report is not before:
            self._reported = now
        news += self._whose()
        last = self.run.last_line
        said_so = last is not None and last.is_end
        ended = not trained if trained is not None else said_so
        if ended and not said_so and not self.state.ended:
            message = Message(
                f"no trainer holds {self.folder / '.lock'}, and train.log tells of no end: the run was cut off; give "
                f"its train command again to go on.",
                warning=True,
            )
            self.run.state = self.run.state.told(message)
            news.append(message)
        self.state = replace(self.run.state, ended=ended)
        return news

    def _whose(self) -> list[News]:
        """A sentence where the folder is that of a machine that does not lead the run."""
        machines = self.run.state.title.machines if self.run.state.title else None
        if self._said_whose or machines is None or not machines.here:
            return []
        self._said_whose = True
        here, first = machines.names[machines.here], machines.names[0]
        message = Message(f"{self.folder} is what {here} writes; {first} validates and saves, in its own folder.")
        self.run.state = self.run.state.told(message)
        return [message]

    def follow(self) -> Iterator[list[News]]:
        """What is new, again and again until the run has ended."""
        while True:
            yield self.look()
            if self.state.ended:
                return
            time.sleep(INTERVAL)

    def clock(self) -> float:
        """Seconds of training."""
        if self.state.ended or self._reported is None:
            return self.state.now
        return self.state.now + time.monotonic() - self._reported

    def shown(self) -> DisplayState:
        """The state as it is now."""
        return self.state.at(self.clock())


def is_trained(folder: Path) -> bool | None:
    """Whether a trainer holds the run's lock; None if the file system does not tell."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def _age(path: Path) -> float:
    """Seconds since the file was last written."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _follow_on_screen(watched: WatchedRun, console: Console) -> None:
    display = LiveDisplay(console, watched.clock)
    following = watched.follow()
    next(following)
    display.state = watched.state
    with display:
        try:
            for _ in following:
                display.state = watched.state
        finally:
            display.state = replace(display.state, messages=display.state.messages[-LAST_MESSAGES:])


def _show_lines(display: PlainDisplay, news: list[News]) -> None:
    for item in news:
        match item:
            case RunTitle():
                display.begin(item)
            case TrainReport():
                display.trained(item)
            case ValidReport():
                display.validated(item)
            case Message(text, warning):
                (display.warn if warning else display.say)(text)


def _summary(state: DisplayState) -> list[News]:
    """The title, the last of everything, and the last messages."""
    assert state.title is not None
    reports: list[News] = [state.title]
    if state.report is not None:
        reports.append(state.report)
        machines = state.title.machines
        sharing = len(state.report.machine_tokens)
        for rank in range(sharing if sharing > 1 else 0):
            name = f"machine {rank}" if machines is None else machines.name(rank)
            reports.append(Message(machine_text(state.report, rank, name)))
    reports += state.validations[-1:]
    reports += state.messages[-LAST_MESSAGES:]
    return reports if state.ended else [*reports, Message("The run goes on.")]
