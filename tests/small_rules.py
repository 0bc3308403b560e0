"""Rules for tests, each with one answer that none of the shipped ones gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nmt_async.sync import Arrival, Hybrid, Round, Standing


@dataclass(frozen=True)
class PutOff(Hybrid):
    """Hybrid whose pushes are never more than ``bound`` updates old: an update waits until none would become so."""

    bound: int = 1

    def may_update(self, now: Round) -> bool:
        return super().may_update(now) and now.oldest < self.bound


@dataclass(frozen=True)
class Patient(Hybrid):
    """Hybrid whose workers wait while somebody computes on parameters ``bound`` updates old: a push may end that."""

    bound: int = 1

    def may_start(self, standing: Standing) -> bool:
        return standing.now.oldest < self.bound


@dataclass(frozen=True)
class GapAware(Hybrid):
    """Divides each element of a stale gradient by how far its parameter has gone meanwhile, as Barkai et al. 2020."""

    looks_at_parameters = True
    step: float = 0.01

    def weight(self, arrival: Arrival) -> float | Tensor:
        assert arrival.pulled is not None
        if arrival.staleness == 0:
            return 1.0
        return 1.0 / (1.0 + (arrival.current - arrival.pulled).abs() / self.step)


@dataclass(frozen=True)
class Never(Hybrid):
    """Lets nobody begin a batch."""

    def may_start(self, standing: Standing) -> bool:  # noqa: ARG002
        return False
