"""How long nothing may be heard of a worker, and for how long nothing has been."""

from __future__ import annotations

import math
from collections import deque

LEAST_SECONDS = 60.0
"""A shorter silence is never spoken of."""

SPOKEN_OF = 5
"""Times the slowest batch of late: a longer silence is spoken of."""

REPLACED = 20
"""Times the slowest batch of late: a worker is never replaced after a shorter silence."""

STARTING_SECONDS = 60.0
"""A worker that is starting is never replaced sooner."""

REMEMBERED = 100
"""Batches among which the slowest is sought, so that one that was stopped for an hour does not count for ever."""

LONGEST_STEP = 1.0
"""Seconds that count at most between two looks at the clock."""


class Silence:
    """A clock that goes while the server watches, and the limits in its seconds.

    Between two looks `LONGEST_STEP` counts at most: where the whole job was suspended, or the server was busy with
    something else, nobody has been silent.

    Args:
        timeout: seconds after which a worker is replaced, if that is not less than `REPLACED` batches; 0: never.
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
        """Seconds of silence after which a worker is replaced; infinite if it never is."""
        if not self.timeout:
            return math.inf
        return max(self.timeout, REPLACED * self.slowest, STARTING_SECONDS if starting else 0.0)

    def spoken_of_after(self, starting: bool) -> float:
        """Seconds of silence after which it is spoken of."""
        patience = max(LEAST_SECONDS, SPOKEN_OF * self.slowest)
        return patience if starting else min(patience, self.replaced_after(starting) / 2)
