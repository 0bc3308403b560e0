"""The live display on a terminal: the state, redrawn four times a second by a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from nmt_async.display.console import Display, PlainDisplay
from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.display.screen import BAD, render
from nmt_async.display.state import DisplayState, Message

INTERVAL = 0.25


def display_for(out: TextIO, quiet: bool = False) -> Display:
    """The live display if ``out`` is a terminal that can show it, plain lines otherwise or if ``quiet``."""
    console = None if quiet else able_console(out)
    return PlainDisplay(out, quiet) if console is None else LiveDisplay(console)


def able_console(out: TextIO) -> Console | None:
    """A console on ``out``; None if that is no terminal that can show the screen."""
    console = Console(file=out)
    able = out.isatty() and console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    return console if able else None


class LiveDisplay:
    """One screen that follows the run; what was said stays below it when the run has ended.

    Training only replaces the state, which is one assignment; the drawing thread reads it whenever it draws. A
    terminal that goes away ends the drawing, not the run.

    Args:
        console: to draw on.
        clock: seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.state = DisplayState()
        self._ended = threading.Event()
        self._live = Live(console=console)

    def __enter__(self) -> Self:
        """May be entered again later, as when training begins anew with the machines that are left."""
        self._live = Live(
            get_renderable=self._screen, console=self.console, auto_refresh=False, vertical_overflow="crop"
        )
        self._ended.clear()
        self._thread = threading.Thread(target=self._draw, name="display", daemon=True)
        try:
            self._live.start(refresh=True)
            self._thread.start()
        except BaseException:  # Ctrl-C may come as early as this
            with suppress(OSError):
                self._live.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        messages, self.state = self.state.messages, replace(self.state, messages=())
        with suppress(OSError):
            self._live.stop()
            for message in messages:
                self._print(message)

    def _now(self) -> DisplayState:
        return self.state.at(self.clock())

    def _screen(self) -> RenderableType:
        return render(self._now())

    def _draw(self) -> None:
        size = self.console.size
        with suppress(OSError):
            while not self._ended.wait(INTERVAL):
                if self.console.size != size:
                    # The terminal has broken the old rows anew and nobody can tell where they lie now.
                    size = self.console.size
                    self._live.stop()
                    self.console.clear()
                    self._live.start()
                self._live.refresh()

    def begin(self, title: RunTitle) -> None:
        """Which run it is; training begins."""
        self.state = self._now().begun(title)

    def say(self, text: str) -> None:
        """A sentence for the reader."""
        self._tell(Message(text))

    def warn(self, text: str) -> None:
        """A sentence about a problem that the run survives."""
        self._tell(Message(text, warning=True))

    def _tell(self, message: Message) -> None:
        """On the screen; where there is none now, as before a run begins, at once."""
        if self._live.is_started:
            self.state = self.state.told(message)
        else:
            with suppress(OSError):
                self._print(message)

    def _print(self, message: Message) -> None:
        text = Text(f"warning: {message.text}", BAD) if message.warning else Text(message.text)
        self.console.print(text, soft_wrap=True)

    def progress(self, share: float | None, update: int) -> None:
        """How much of the run is done, 0 to 1, None if it has no set end."""
        self.state = self._now().progressed(share, update)

    def trained(self, report: TrainReport) -> None:
        """A stretch of training."""
        self.state = self._now().trained(report)

    def validated(self, report: ValidReport) -> None:
        """A validation."""
        self.state = self.state.validated(report)
