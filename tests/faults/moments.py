"""The moments at which tests strike: other ones in every run of the suite, the same again for the same seed."""

from __future__ import annotations

import os
import random

SEED_NAME = "NMT_ASYNC_FAULT_SEED"
"""The environment variable that gives a printed seed back."""


def fault_seed() -> int:
    """The seed that the environment gives, else a new one."""
    given = os.environ.get(SEED_NAME)
    return int(given) if given else random.SystemRandom().randrange(10**9)


def random_moments() -> random.Random:
    """What to draw moments from. It prints its seed, which pytest shows with a test that fails."""
    seed = fault_seed()
    print(f"To strike at the same moments again: {SEED_NAME}={seed}")
    return random.Random(seed)
