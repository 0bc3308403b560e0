"""Which corrections of stale gradients, and their constants."""

from __future__ import annotations

from dataclasses import dataclass

STALENESS_RULES = {
    "none": "as it is",
    "scale": "divided by its age",
    "decay": "shrunk with its age until it counts for nothing",
    "gap-aware": "each element divided by how far its parameter has gone meanwhile",
    "delay-compensated": "moved to where the parameters are now, by a guess of the curvature",
}
"""What is done to a stale gradient, by the names for ``--staleness-rule``, in a few words for ``--help``."""


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
    """

    rule: str = "none"
    grace: int = 0
    decay: float = 0.1
    cutoff: float = 8.0
    compensation: float = 0.04
    adaptive: bool = False

    @property
    def looks_at_parameters(self) -> bool:
        """Whether the parameters that a push was computed on are kept until it comes."""
        return self.rule in ("gap-aware", "delay-compensated")

    @property
    def vectors(self) -> int:
        """How many vectors of the size of the parameters they remember."""
        return int(self.rule == "gap-aware" or (self.rule == "delay-compensated" and self.adaptive))


NONE = CorrectionSettings()
