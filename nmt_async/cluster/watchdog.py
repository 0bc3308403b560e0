"""The watchdog: a hang explains itself, and does not last.

A worker that is stopped, or hangs in its data, a device or a kernel, has not died: its pipe is open and its process is
there. So silence is an event too. After a first limit it is told, and every worker is asked where it is, and again
each time the silence has doubled; after a second limit the worker is to be replaced, which is a death like any other.
If it goes on before that, its push counts by the rule that counts all others.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping, Sequence

from nmt_async.cluster.seat import Seat
from nmt_async.cluster.silence import Silence
from nmt_async.cluster.stacks import ask, state_of

STEP = 0.4
"""Seconds between two looks at the workers."""

ANSWER_SECONDS = 2.0
"""A worker that has not written its stacks by then does not run."""


class Watchdog:
    """Looks after the workers of a cluster.

    Args:
        timeout: of `Silence`.
        warn: takes one sentence about a worker of which nothing is heard.
        log: takes the stacks.
    """

    def __init__(self, timeout: float, warn: Callable[[str], None], log: Callable[[str], None]) -> None:
        self.silence = Silence(timeout)
        self._warn = warn
        self._log = log
        self._looked = 0.0

    def heard(self, index: int, seat: Seat) -> None:
        """The worker said something, was given something, or is new."""
        if seat.spoken_of:
            self._log(f"[watchdog] worker {index} is heard again, after {self._quiet(seat):.0f} s")
        seat.heard = self.silence.now
        seat.spoken_of, seat.asked = 0, None

    def _quiet(self, seat: Seat) -> float:
        return self.silence.now - seat.heard

    def look(self, seats: Sequence[Seat], busy: Mapping[int, str]) -> list[int]:
        """Call often, when every idle worker has been dealt what it may have.

        Args:
            seats: the workers.
            busy: of each worker that does not wait for a task, where it is, in words.

        Returns:
            Those to be replaced, with the reason as their seat's error.
        """
        self.silence.look(time.monotonic())
        if self.silence.now - self._looked < STEP:
            return []
        self._looked = self.silence.now
        for index, seat in enumerate(seats):
            self._take(index, seat)
        overdue = []
        for index, seat in enumerate(seats):
            if index not in busy:
                continue
            if self._quiet(seat) > self.silence.replaced_after(seat.starting):
                seat.error = f"no sign of it for {self._quiet(seat):.0f} s"
                overdue.append(index)
            elif self._quiet(seat) > self.silence.spoken_of_after(seat.starting) * 2**seat.spoken_of:
                if not seat.spoken_of:
                    self._warn(self._told(index, seat, busy[index], awaited=len(busy) < len(seats)))
                seat.spoken_of += 1
                self._ask(seats)
        return overdue

    def _told(self, index: int, seat: Seat, where: str, awaited: bool) -> str:
        since = datetime.datetime.now() - datetime.timedelta(seconds=self._quiet(seat))
        limit = self.silence.replaced_after(seat.starting)
        parts = [
            f"nothing has been heard of worker {index} (process {seat.pid}) for {self._quiet(seat):.0f} s, "
            f"{where} since {since:%H:%M:%S}",
            "others wait for it" if awaited else "",
            state_of(seat.pid),
            "it is waited for without end" if math.isinf(limit) else f"it is replaced after {limit:.0f} s",
            "the log has the workers' stacks",
        ]
        return "; ".join(filter(None, parts)) + "."

    def _ask(self, seats: Sequence[Seat]) -> None:
        """Asks those that were not asked a moment ago, for another's sake: many may fall silent together."""
        for seat in seats:
            moment = self.silence.spoken_of_after(seat.starting) / 2
            if seat.asked is None or self.silence.now - seat.asked > moment:
                seat.asked, seat.answered = self.silence.now, False
                ask(seat.pid)

    def _take(self, index: int, seat: Seat) -> None:
        """Logs what the worker has written, or that it does not answer."""
        stacks = seat.stacks.take()
        if stacks:
            seat.answered = True
            self._log(f"[stack] worker {index} (process {seat.pid}):\n{stacks}")
        elif seat.asked is not None and not seat.answered and self.silence.now - seat.asked > ANSWER_SECONDS:
            seat.answered = True
            why = state_of(seat.pid) or "it may not have got so far"
            self._log(f"[stack] worker {index} (process {seat.pid}) does not answer: {why}")

    def ended(self, index: int, seat: Seat) -> None:
        """The worker has ended: where it was when it crashed, or was last asked, goes to the log."""
        self._take(index, seat)
