"""The numbers of the outer step; see `nmt_async.sync.between.outer`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OuterSettings:
    """How machines with updates of their own become one.

    Attributes:
        updates: K, that each machine makes between two exchanges of the same parameters.
        rate: of the outer step.
        momentum: of the outer step.
        fragments: P, of the parameters, which are exchanged one after another; K is a multiple of it.
        dtype: in which differences cross the network: float32 or bfloat16.

    Raises:
        ValueError: K is no multiple of P.
    """

    updates: int = 16
    rate: float = 0.7
    momentum: float = 0.9
    fragments: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.fragments <= self.updates or self.updates % self.fragments:
            raise ValueError(
                f"{self.fragments} fragments do not share the {self.updates:,} updates of --local-updates evenly"
            )

    @property
    def every(self) -> int:
        """Updates of its own that a machine makes between two exchanges."""
        return self.updates // self.fragments
