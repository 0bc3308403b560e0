"""The watchdog: a hang explains itself, and does not last.

A child that is stopped, or hangs in its data, a device or a kernel, has not died: its pipe is open and its process is
there. So silence is an event too. After a first limit it is told, and every child is asked where it is, and again
each time the silence has doubled; after a second limit the child is to be replaced, which is a death like any other.
If it goes on before that, what it has computed counts as ever.
"""

from __future__ import annotations

import datetime
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nmt_async.process.child import Child

LEAST_SECONDS = 60.0
"""A shorter silence is never spoken of."""

SPOKEN_OF = 5
"""Times the slowest batch of late: a longer silence is spoken of."""

REPLACED = 20
"""Times the slowest batch of late: a child is never replaced after a shorter silence."""

STARTING_SECONDS = 60.0
"""A child that is starting is never replaced sooner."""

REMEMBERED = 100
"""Batches among which the slowest is sought, so that one that was stopped for an hour does not count for ever."""

LONGEST_STEP = 1.0
"""Seconds that count at most between two looks at the clock."""

STEP = 0.4
"""Seconds between two looks at the children."""

ANSWER_SECONDS = 2.0
"""A child that has not written its stacks by then does not run."""


class Silence:
    """A clock that goes while the parent watches, and the limits in its seconds.

    Between two looks `LONGEST_STEP` counts at most: where the whole job was suspended, or the parent was busy with
    something else, nobody has been silent.

    Args:
        timeout: seconds after which a child is replaced, if that is not less than `REPLACED` batches; 0: never.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.now = 0.0
        self._looked: float | None = None
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def look(self, clock: float) -> None:
        """Moves on to what a monotonic clock shows."""
        if self._looked is not None:
            self.now += min(clock - self._looked, LONGEST_STEP)
        self._looked = clock

    def computed(self, seconds: float) -> None:
        """A batch took so long."""
        self._seconds.append(seconds)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest batch of late; 0 if there was none."""
        return max(self._seconds, default=0.0)

    def replaced_after(self, starting: bool) -> float:
        """Seconds of silence after which a child is replaced; infinite if it never is."""
        if not self.timeout:
            return math.inf
        return max(self.timeout, REPLACED * self.slowest, STARTING_SECONDS if starting else 0.0)

    def spoken_of_after(self, starting: bool) -> float:
        """Seconds of silence after which it is spoken of."""
        patience = max(LEAST_SECONDS, SPOKEN_OF * self.slowest)
        return patience if starting else min(patience, self.replaced_after(starting) / 2)


@dataclass
class Watched:
    """A child of which something is to be heard, and what the watchdog knows of it.

    Attributes:
        starting: it has not said yet that it is ready.
        error: why it ended or is to be ended; empty where its exit code tells.
        heard: when it last said something or was given a task, by the watchdog's clock.
        spoken_of: how often its silence has been noticed since then, which is ever later.
        asked: when it was last asked for its stacks, by the watchdog's clock, if it has not said anything since.
        answered: to that, or it has been told that it did not.
    """

    process: Child
    starting: bool = True
    error: str = ""
    heard: float = 0.0
    spoken_of: int = 0
    asked: float | None = None
    answered: bool = False

    @property
    def ending(self) -> str:
        """How it came to its end, in words."""
        return self.error or self.process.ending


class Watchdog:
    """Looks after children that do the same.

    Args:
        timeout: of `Silence`.
        warn: takes one sentence about a child of which nothing is heard.
        log: takes the stacks.
    """

    def __init__(self, timeout: float, warn: Callable[[str], None], log: Callable[[str], None]) -> None:
        self.silence = Silence(timeout)
        self._warn = warn
        self._log = log
        self._looked = 0.0

    def heard(self, child: Watched) -> None:
        """The child said something, was given something, or is new."""
        if child.spoken_of:
            self._log(f"[watchdog] {child.process.name} is heard again, after {self._quiet(child):.0f} s")
        child.heard = self.silence.now
        child.spoken_of, child.asked = 0, None

    def _quiet(self, child: Watched) -> float:
        return self.silence.now - child.heard

    def look(self, children: Sequence[Watched], busy: Mapping[int, str]) -> list[int]:
        """Call often, when every idle child has been given what it may have.

        Args:
            busy: the index of each child of which something is to be heard, and where it is, in words.

        Returns:
            The indexes of those to be replaced, with the reason as their error.
        """
        self.silence.look(time.monotonic())
        if self.silence.now - self._looked < STEP:
            return []
        self._looked = self.silence.now
        for child in children:
            self._take(child)
        overdue = []
        for index, child in enumerate(children):
            if index not in busy:
                continue
            if self._quiet(child) > self.silence.replaced_after(child.starting):
                child.error = f"no sign of it for {self._quiet(child):.0f} s"
                overdue.append(index)
            elif self._quiet(child) > self.silence.spoken_of_after(child.starting) * 2**child.spoken_of:
                if not child.spoken_of:
                    self._warn(self._told(child, busy[index], awaited=len(busy) < len(children)))
                child.spoken_of += 1
                self._ask(children)
        return overdue

    def _told(self, child: Watched, place: str, awaited: bool) -> str:
        since = datetime.datetime.now() - datetime.timedelta(seconds=self._quiet(child))
        limit = self.silence.replaced_after(child.starting)
        parts = [
            f"nothing has been heard of {child.process.name} (process {child.process.pid}) for "
            f"{self._quiet(child):.0f} s, {place} since {since:%H:%M:%S}",
            "others wait for it" if awaited else "",
            child.process.state,
            "the run waits for it without end" if math.isinf(limit) else f"it is replaced after {limit:.0f} s",
            "train.log has the stacks",
        ]
        return "; ".join(filter(None, parts)) + "."

    def _ask(self, children: Sequence[Watched]) -> None:
        """Asks those that were not asked a moment ago, for another's sake: many may fall silent together."""
        for child in children:
            moment = self.silence.spoken_of_after(child.starting) / 2
            if child.asked is None or self.silence.now - child.asked > moment:
                child.asked, child.answered = self.silence.now, False
                child.process.ask()

    def _take(self, child: Watched) -> None:
        """Logs what the child has written, or that it does not answer."""
        told = f"[stack] {child.process.name} (process {child.process.pid})"
        stacks = child.process.stacks.take()
        if stacks:
            child.answered = True
            self._log(f"{told}:\n{stacks}")
        elif child.asked is not None and not child.answered and self.silence.now - child.asked > ANSWER_SECONDS:
            child.answered = True
            self._log(f"{told} does not answer: {child.process.state or 'perhaps it has not started yet'}")

    def ended(self, child: Watched) -> None:
        """The child has ended: where it was when it crashed, or was last asked, goes to the log."""
        self._take(child)
