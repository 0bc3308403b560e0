"""The place of one worker among the processes: who sits there, and what it has told."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from multiprocessing.connection import Connection

from nmt_async.process.watchdog import Watched


@dataclass
class Seat(Watched):
    """A worker's process, which may be replaced, and what is known of it.

    Attributes:
        device: where it computes.
        gone: its process or its pipe has ended.
        deaths: in a row.
        dealt: when it was given its latest task, by the monotonic clock; None if it never was.
        computing: seconds spent on batches since `ProcessCluster.waiting_shares` was last asked.
        waiting: seconds spent waiting for a task since then.
        tokens: target tokens of all its pushes that counted.
        latest: when its latest push was taken in, by the monotonic clock.
        most: padded tokens that it computes at once, found when memory failed; 0: no limit is known.
    """

    device: str = "cpu"
    gone: bool = False
    deaths: int = 0
    dealt: float | None = None
    computing: float = 0.0
    waiting: float = 0.0
    tokens: int = 0
    latest: float = 0.0
    most: int = 0

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def pipe(self) -> Connection:
        """To its process."""
        return self.process.pipe

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
