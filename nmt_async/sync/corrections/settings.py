"""Which corrections of stale gradients, and their constants."""

from __future__ import annotations

import math
from dataclasses import dataclass

STALENESS_RULES = {
    "none": "as it is",
    "scale": "divided by its age",
    "decay": "shrunk with its age until it counts for nothing",
    "gap-aware": "each element divided by how far its parameter has gone meanwhile",
    "delay-compensated": "moved to where the parameters are now, by a guess of the curvature",
}
"""What is done to a stale gradient, by the names for ``--staleness-rule``, in a few words for ``--help``."""

PREDICTIONS = ("none", "last-step")
"""For ``--weight-prediction``."""

LOOK_AHEADS = {
    "none": "one momentum of all workers",
    "dana": "a momentum for each worker, which computes where all of them lead",
    "dana-slim": "the same with the parameters themselves ahead, at no cost for a pull",
}
"""For ``--momentum-lookahead``, as above."""

WITH_MOMENTUM = ("sgd", "adam", "adamw")
"""Optimizers whose momentum may be that of each worker."""


@dataclass(frozen=True)
class CorrectionSettings:
    """The constants of all corrections; each reads its own.

    Attributes:
        rule: of `STALENESS_RULES`.
        grace: `scale` leaves pushes as they are that are up to so many updates old.
        decay: α of `decay`, for each update of age.
        cutoff: the age at which `decay` lets nothing of a push count.
        compensation: λ of `delay-compensated`.
        adaptive: whether that λ is divided by the running magnitude of each element.
        feedback: how much of the error that the delay makes in a step is made good in the next one; 0: none.
        prediction: of `PREDICTIONS`.
        predicted: how many updates ahead a prediction is; None: as many as a push is old on average, or the nearest
            whole number if that is more.
        momentum: of `LOOK_AHEADS`.
        quantized: workers compute on quantised parameters.
    """

    rule: str = "none"
    grace: int = 0
    decay: float = 0.1
    cutoff: float = 8.0
    compensation: float = 0.04
    adaptive: bool = False
    feedback: float = 0.0
    prediction: str = "none"
    predicted: float | None = None
    momentum: str = "none"
    quantized: bool = False

    @property
    def looks_at_parameters(self) -> bool:
        """Whether the parameters that a push was computed on are kept until it comes."""
        return self.rule in ("gap-aware", "delay-compensated")

    def updates_ahead(self, staleness: float) -> float:
        """How many updates ahead of their own the parameters are that workers get; 0: they are the server's.

        Args:
            staleness: of a push, in updates, as it is to be expected on average.
        """
        if self.prediction == "none":
            return 0.0
        nearest = math.floor(staleness + 0.5)  # 1 where every other push is an update old
        return max(staleness, float(nearest)) if self.predicted is None else self.predicted

    def vectors(self, workers: int, pushes: int, staleness: float = 0.0) -> int:
        """How many vectors of the size of the parameters they remember at most.

        Args:
            pushes: that one update sums.
            staleness: of a push, in updates, as it is to be expected on average.
        """
        remembered = int(self.rule == "gap-aware" or (self.rule == "delay-compensated" and self.adaptive))
        remembered += bool(self.feedback) + 2 * bool(self.updates_ahead(staleness))
        # Whatever looks ahead has the parameters beside what pulls give.
        remembered += self.quantized and not (self.updates_ahead(staleness) or self.momentum == "dana")
        if self.momentum != "none":
            shared = workers if min(workers, pushes) > 1 else 0
            # In the place of the optimizer's one momentum; DANA-Zero has the parameters beside what pulls give.
            remembered += workers + shared - 1 + (self.momentum == "dana")
        return remembered


NONE = CorrectionSettings()
