"""Rules for tests, each with one answer that none of the shipped ones gives."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.sync import Hybrid, Round, Standing


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
class Never(Hybrid):
    """Lets nobody begin a batch."""

    def may_start(self, standing: Standing) -> bool:  # noqa: ARG002
        return False
