"""Synchronous: workers compute on the same parameters, and wait for the update that holds their pushes.

A round has W x N batches, N of each worker. Two options loosen it for workers that are not equally fast:

- ``fastest`` M: the update sums the first M pushes of the round. The others are late: they do not count, and their
  batches are computed again, or their workers restart. With N = 1 these are the backup workers of Chen et al. (2016,
  arXiv 1604.00981), analysed as m-synchronous SGD (arXiv 2602.03802). There what is late is dropped; here no batch is
  lost. M = W x N is synchronous training.
- ``balance``: a worker takes the next batch of the round as soon as it is free, whoever it is, so that fast workers
  compute more of a round. The update sums the same batches in the same order, so the parameters are bit-equal to those
  without it, and only the time is another.

Nobody waits for ever: a round's batches are on the current version, and each of their pushes counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from nmt_async.sync.rules.rule import Rule, Standing, Waiting


@dataclass(frozen=True)
class Synchronous(Rule):
    """An update sums W x N pushes on one version, or the first ``fastest`` of them; a worker waits for the update."""

    mode: ClassVar[str] = "sync"
    summary: ClassVar[str] = "all workers wait for each update"
    takes: ClassVar[frozenset[str]] = frozenset(("older_pushes", "fastest", "balance"))
    waits_for_update: ClassVar[bool] = True

    workers: int
    accumulate: int = 1
    fastest: int | None = None
    restart: bool = False
    balance: bool = False

    @classmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:
        """N batches of each worker; 1 by default.

        Raises:
            ValueError: a round has fewer pushes than the fastest that are waited for, or none that can be late.
        """
        accumulate = accumulate or 1
        batches, fastest = workers * accumulate, waiting.fastest
        if fastest is None and waiting.restart:
            raise ValueError("each push is waited for, so no worker restarts; give the fastest, too")
        if fastest is not None and not 1 <= fastest <= batches:
            raise ValueError(f"a round has {batches} pushes, so the fastest of them are 1 to {batches}, not {fastest}")
        if fastest == batches:
            return cls(workers, accumulate, balance=waiting.balance)
        return cls(workers, accumulate, fastest, waiting.restart, waiting.balance)

    @property
    def batches(self) -> int:
        """Of a round: W x N."""
        return self.workers * self.accumulate

    @property
    def pushes(self) -> int:
        """W x N, or the fastest."""
        return self.batches if self.fastest is None else self.fastest

    @property
    def name(self) -> str:
        """``sync``, ``sync:N``, and what loosens it: ``sync:2+fastest:6+restart``."""
        fastest = "" if self.fastest is None else f"+fastest:{self.fastest}"
        plain = self.mode if self.accumulate == 1 else super().name
        return f"{plain}{fastest}{'+restart' if self.restart else ''}{'+balance' if self.balance else ''}"

    @property
    def ordered(self) -> bool:
        """Unless it depends on who comes first what is summed: then the order does not matter, and need not be held."""
        return self.fastest is None

    @property
    def restarts(self) -> bool:
        """As asked for."""
        return self.restart

    def counts(self, staleness: int) -> bool:
        """Only pushes on the current version."""
        return staleness == 0

    def may_start(self, standing: Standing) -> bool:
        """N batches a worker and round, or as many as there are."""
        return standing.all < self.batches and (self.balance or standing.own < self.accumulate)

    def held(self, workers: int) -> int:
        """Pushes that may come before the first batch of their round.

        All but those of the worker that is at its first batch; with balance, that worker may have begun this one alone.
        """
        if workers == 1 or not self.ordered:
            return 0
        return self.batches - (1 if self.balance else self.batches // workers)

    def with_workers(self, workers: int) -> Synchronous | None:
        """As many batches in all, where they can be shared out evenly."""
        each, rest = divmod(self.batches, workers)
        return None if rest else replace(self, workers=workers, accumulate=each)

    def with_pushes(self, pushes: float, workers: int) -> Synchronous:
        """With another N, and as many of the fastest in proportion, if not all are waited for."""
        accumulate = max(1, round(pushes * self.batches / self.pushes / workers))
        fastest = None if self.fastest is None else max(1, round(workers * accumulate * self.fastest / self.batches))
        return replace(self, workers=workers, accumulate=accumulate, fastest=fastest)
