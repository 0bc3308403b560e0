"""Learning-rate schedules over updates, target tokens or epochs.

Warm-up is linear; after it the rate falls with the inverse square root (Vaswani et al. 2017, equation 3, scaled so
that its peak is the given rate, as Marian's ``--lr-warmup`` with ``--lr-decay-inv-sqrt``), linearly, with half a
cosine (Loshchilov & Hutter 2017), or not at all. The inverse square root may begin elsewhere than at the end of
warm-up, as Marian's ``--lr-decay-inv-sqrt`` does: then there may be no warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nmt_async.quantity import Quantity

DECAYS = ("inv-sqrt", "linear", "cosine", "none")


@dataclass(frozen=True)
class Progress:
    """How far training is, in every unit a schedule may count."""

    updates: int = 0
    tokens: int = 0
    epochs: float = 0.0

    def amount(self, unit: str) -> float:
        """The progress in ``unit``: updates, tokens or epochs."""
        return float(getattr(self, unit))


@dataclass(frozen=True)
class Schedule:
    """The learning rate at any point of training.

    Attributes:
        peak: the rate after warm-up.
        warmup: grows linearly from 0 to the peak over it.
        decay: one of `DECAYS`.
        end: where linear and cosine decay, which begin at the end of warm-up, have arrived at ``floor``.
        floor: the rate falls no further than this fraction of the peak.
        start: where inverse square root begins to fall; None: at the end of warm-up, and without a warm-up nowhere.
    """

    peak: float
    warmup: Quantity
    decay: str = "inv-sqrt"
    end: Quantity | None = None
    floor: float = 0.0
    start: Quantity | None = None

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"{self.decay!r} is not one of {', '.join(DECAYS)}")
        if self.decay in ("linear", "cosine") and self.end is None:
            raise ValueError(f"{self.decay} decay needs an end")

    def rate(self, progress: Progress) -> float:
        """The learning rate of the update that brings training to ``progress``."""
        warmed = _share(self.warmup, progress)
        if self.decay == "inv-sqrt":
            begun = _share(self.start or self.warmup, progress)
            fallen = 1.0 / math.sqrt(begun) if 1.0 < begun < math.inf else 1.0
            return self.peak * min(warmed, 1.0) * max(fallen, self.floor)
        if warmed < 1.0:
            return self.peak * warmed
        if self.end is not None and self.decay in ("linear", "cosine"):
            gone = _gone(_share(self.end, progress), warmed)
            left = 1.0 - gone if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))
            return self.peak * (self.floor + (1.0 - self.floor) * left)
        return self.peak


def _share(of: Quantity, progress: Progress) -> float:
    """How much of an amount has gone by; 1 is all, more is beyond."""
    return progress.amount(of.unit) / of.amount if of.amount else math.inf


def _gone(share: float, warmed: float) -> float:
    """The share of the way from the end of warm-up to the end of decay, 0 to 1.

    The two may count in different units: ``share / warmed`` is where, in the unit of the decay, warm-up has ended,
    if both units go by at a constant ratio.
    """
    if share >= 1.0:
        return 1.0
    begin = share / warmed
    return (share - begin) / (1.0 - begin)
