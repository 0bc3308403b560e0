"""Corrections that know nothing of a push but its age τ, in updates."""

from __future__ import annotations

import math

from nmt_async.sync.corrections.correction import Arrival, Correction


class Scaled(Correction):
    """Divides by the age (Zhang, Gupta, Lian & Liu 2016, arXiv 1511.05950): 1 / (1 + max(0, τ - grace)).

    They divide the learning rate by τ where τ is not 0, which is ``grace`` = 1. A push that is one update old then
    keeps its whole weight. In a hybrid that sums as many pushes as it has workers, hardly any push is older.

    Args:
        grace: pushes up to so many updates old are left as they are.
    """

    def __init__(self, grace: int = 0) -> None:
        super().__init__()
        self.grace = grace

    def weight(self, arrival: Arrival) -> float:
        """As in `Correction`."""
        return 1.0 / (1 + max(0, arrival.staleness - self.grace))


class Decayed(Correction):
    """CGAD's weight (Shah & Sun 2026, arXiv 2605.09126): γ(τ) exp(-α τ), where γ falls from 1 to 0 at a cutoff.

    They say that γ is a cosine which smoothly becomes zero at the cutoff. Here it is half a wave of it,
    (1 + cos(π τ / cutoff)) / 2, which is level at both ends.

    Args:
        decay: α.
        cutoff: the age from which on nothing of a push counts; its tokens still do.
    """

    def __init__(self, decay: float, cutoff: float) -> None:
        super().__init__()
        self.decay = decay
        self.cutoff = cutoff

    def weight(self, arrival: Arrival) -> float:
        """As in `Correction`."""
        if arrival.staleness >= self.cutoff:
            return 0.0
        gate = 0.5 * (1.0 + math.cos(math.pi * arrival.staleness / self.cutoff))
        return gate * math.exp(-self.decay * arrival.staleness)
