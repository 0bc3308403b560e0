"""How much of their time workers wait for a task: the same measure in real and in virtual seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Timed(Protocol):
    """A worker's seat that counts its seconds.

    Attributes:
        computing, waiting: seconds spent on batches, and waiting for one, since last taken.
    """

    computing: float
    waiting: float


def take_waiting_shares(seats: Iterable[Timed]) -> list[float]:
    """Of each worker's time since the last call, the share that it waited; the counting begins anew."""
    shares = []
    for seat in seats:
        total = seat.computing + seat.waiting
        shares.append(seat.waiting / total if total else 0.0)
        seat.computing = seat.waiting = 0.0
    return shares
