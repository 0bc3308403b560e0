"""The numbers of the outer step; see `nmt_async.sync.between.outer`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OuterSettings:
    """How machines with updates of their own become one.

    Attributes:
        updates: K, that each machine makes between two exchanges.
        rate: of the outer step.
        momentum: of the outer step.
    """

    updates: int = 16
    rate: float = 0.7
    momentum: float = 0.9
