"""The place of one worker among the processes: who sits there, what it has told, and how it ended."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from nmt_async.cluster.stacks import StackFile


@dataclass
class Seat:
    """A worker's process, which may be replaced, and what is known of it.

    Attributes:
        stacks: what it writes when it is asked where it is, or crashes.
        starting: it has not said yet that it is ready.
        tasks: that were given to this process.
        gone: its process or its pipe has ended.
        deaths: in a row.
        error: the latest exception it reported, or why it was ended.
        computing: seconds spent on batches since `ProcessCluster.waiting_shares` was last asked.
        waiting: seconds spent waiting for a task since then.
        tokens: target tokens of all its pushes that counted.
        dealt: when it was given its latest task, by the monotonic clock.
        latest: when its latest push was taken in, by the monotonic clock.
        most: padded tokens that it computes at once, found when memory failed; 0: no limit is known.
        heard: when it last said something or was given a task, by the watchdog's clock.
        spoken_of: how often its silence has been noticed since then, which is ever later.
        asked: when it was last asked for its stacks, by the watchdog's clock, if it has not said anything since.
        answered: to that, or it has been told that it did not.
    """

    device: str
    process: SpawnProcess
    pipe: Connection
    stacks: StackFile
    starting: bool = True
    tasks: int = 0
    gone: bool = False
    deaths: int = 0
    error: str = ""
    computing: float = 0.0
    waiting: float = 0.0
    tokens: int = 0
    dealt: float = 0.0
    latest: float = 0.0
    most: int = 0
    heard: float = 0.0
    spoken_of: int = 0
    asked: float | None = None
    answered: bool = False

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid or 0

    def next_message(self) -> object | None:
        """What the worker said next, None if nothing more for now; after its pipe's end it is gone."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self.gone = True
            return None

    def tell(self, message: object) -> None:
        """Sends it something; if it just died, its sentinel says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def close(self) -> None:
        """Gives back what the process, which has ended, was spoken to with. Safe to call twice."""
        self.pipe.close()
        self.stacks.close()

    @property
    def ending(self) -> str:
        """How it came to its end, in words."""
        return self.error or ending_of(self.process.exitcode)


def ending_of(code: int | None) -> str:
    """How a process with this exit code came to its end, in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed by signal 9; out of memory?"
    name = f", {signal.Signals(-code).name}" if -code in set(signal.Signals) else ""
    return f"killed by signal {-code}{name}"
