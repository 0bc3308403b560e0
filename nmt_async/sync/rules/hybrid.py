"""Hybrid and asynchronous: an update sums N pushes from whoever delivers them (Aji & Heafield 2019, section 3).

Their hybrid sums in the server over all workers; with N = 1 it is asynchronous SGD. Three numbers make the methods of
others of it, which differ in what they do with old pushes:

- ``oldest_push`` K: a push that is more than K updates old does not count. K = 0 is Rennala SGD (Tyurin & Richtarik
  2023, arXiv 2305.12387), which sums N gradients of the current parameters; N = 1 and K = R - 1 is Ringmaster ASGD
  (Maranjyan, Tyurin & Richtarik 2025, arXiv 2501.16168, algorithm 4), which ignores a gradient whose delay is R or
  more. These works draw a new sample and forget the refused one; here no batch is lost, so it is computed again.
- ``restart``: the worker stops at once when its push could not count any more (their algorithm 5).
- ``max_staleness`` K: no push that enters an update is more than K updates old, and none is refused: the update waits
  for the workers whose pushes would become older by it, and nobody begins a batch meanwhile. That is stale synchronous
  parallel (Ho et al. 2013) with the clock of the server: there a worker waits that is more than K steps ahead of the
  slowest. With K = 0 a batch is begun only if the coming update needs it, which is a barrier.

Nobody waits for ever. A push on the current version always counts, so after an update each worker is refused at most
once before its next push counts; and an update that waits does so for workers that compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from nmt_async.sync.rules.rule import RefusesOld, Round, Standing, Waiting


@dataclass(frozen=True)
class Hybrid(RefusesOld):
    """An update sums N pushes from whoever delivers them; for the other numbers see the head of this file."""

    mode: ClassVar[str] = "hybrid"
    summary: ClassVar[str] = "an update sums N pushes of any workers"
    takes: ClassVar[frozenset[str]] = frozenset(("oldest_push", "older_pushes", "max_staleness"))

    accumulate: int
    oldest_push: int | None = None
    restart: bool = False
    max_staleness: int | None = None

    @classmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:
        """N is the workers' number by default, as in the paper: an update then has the batch of a synchronous one."""
        return cls(accumulate or workers, **cls._old_pushes(waiting))

    @staticmethod
    def _old_pushes(waiting: Waiting) -> dict[str, Any]:
        """What is to become of old pushes.

        Raises:
            ValueError: two things at once, or nothing that could be restarted.
        """
        if waiting.oldest_push is not None and waiting.max_staleness is not None:
            raise ValueError("where updates wait for old pushes none is refused; give one of the two bounds")
        Hybrid.check_restart(waiting)
        return {name: getattr(waiting, name) for name in ("oldest_push", "restart", "max_staleness")}

    @property
    def pushes(self) -> int:
        """N."""
        return self.accumulate

    @property
    def sums_more(self) -> bool:
        """While an update waits for an old push; a barrier's has all that was begun."""
        return bool(self.max_staleness)

    @property
    def name(self) -> str:
        """``hybrid:4``, and what is to become of old pushes: ``hybrid:4+oldest:1+restart``."""
        return self._plain_name + self.suffix

    @property
    def _plain_name(self) -> str:
        return super().name

    @property
    def suffix(self) -> str:
        """With the bound for which updates wait."""
        return super().suffix + ("" if self.max_staleness is None else f"+staleness:{self.max_staleness}")

    def may_start(self, standing: Standing) -> bool:
        """Always, except while an update waits, and with a barrier when the coming update has all its batches."""
        if self.max_staleness is None:
            return True
        return standing.now.pushes < self.pushes and (self.max_staleness > 0 or standing.all < self.pushes)

    def may_update(self, now: Round) -> bool:
        """With N pushes, unless a worker computes on a version that the update would make too old."""
        if not super().may_update(now):
            return False
        return self.max_staleness is None or not now.pulled or now.oldest < self.max_staleness

    def staleness(self, workers: int) -> float:
        """(W - 1) / N at most, and never above the bound."""
        bounds = [bound for bound in (self.oldest_push, self.max_staleness) if bound is not None]
        return min([(workers - 1) / self.pushes, *map(float, bounds)])

    @property
    def keeps_young(self) -> bool:
        """With a bound, unless that is 0 and nothing is left to say."""
        return bool(self.oldest_push or self.max_staleness)

    def with_pushes(self, pushes: float, workers: int) -> Hybrid:  # noqa: ARG002
        """With another N."""
        return replace(self, accumulate=max(1, round(pushes)))


@dataclass(frozen=True)
class Asynchronous(Hybrid):
    """Each push is an update: hybrid with N = 1. Updates that wait for old pushes may sum several."""

    mode: ClassVar[str] = "async"
    summary: ClassVar[str] = "each push is an update"

    accumulate: int = field(default=1, init=False)

    @classmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:  # noqa: ARG003
        """It has no N.

        Raises:
            ValueError: one was given that is not 1, or bounds that do not go together.
        """
        if accumulate not in (None, 1):
            raise ValueError("async applies every push by itself; to sum several before an update, choose hybrid")
        return cls(**cls._old_pushes(waiting))

    def with_pushes(self, pushes: float, workers: int) -> Asynchronous:  # noqa: ARG002
        """Itself: each push is an update."""
        return self

    @property
    def _plain_name(self) -> str:
        return self.mode
