"""Synchronous: all workers compute on the same parameters, and wait for the update that holds their pushes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from nmt_async.sync.rules.rule import Rule, Standing, Waiting


@dataclass(frozen=True)
class Synchronous(Rule):
    """An update sums W x N pushes on one version; a worker waits for the update that holds its push."""

    mode: ClassVar[str] = "sync"
    summary: ClassVar[str] = "all workers wait for each update"
    waits_for_update: ClassVar[bool] = True

    workers: int
    accumulate: int = 1

    @classmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:  # noqa: ARG003
        """N batches of each worker; 1 by default."""
        return cls(workers, accumulate or 1)

    @property
    def pushes(self) -> int:
        """W x N."""
        return self.workers * self.accumulate

    @property
    def name(self) -> str:
        """``sync``, or ``sync:N``."""
        return self.mode if self.accumulate == 1 else super().name

    @property
    def ordered(self) -> bool:
        """Always, so that the sum does not depend on who comes first."""
        return True

    def counts(self, staleness: int) -> bool:
        """Only pushes on the current version."""
        return staleness == 0

    def may_start(self, standing: Standing) -> bool:
        """N batches a worker and round."""
        return standing.own < self.accumulate and standing.all < self.pushes

    def held(self, workers: int) -> int:
        """All pushes of a round but those of the worker that is at its first batch may come before it."""
        return self.pushes - self.pushes // workers

    def with_workers(self, workers: int) -> Synchronous | None:
        """As many batches in all, where they can be shared out evenly."""
        each, rest = divmod(self.pushes, workers)
        return None if rest else Synchronous(workers, each)
