"""When pushes become an update: a mode is a rule, a small value that answers a few questions.

*Which pushes count*, *when their sum becomes an update*, *in whose order they are summed*, and *who must wait*. A rule
also says what to expect of it, so that options, plans and pages need not know one from another. A new mode is a class
with these answers and its entry in `RULES`. Synchronous, asynchronous and hybrid are those of Aji & Heafield 2019,
section 3; their hybrid sums in the server over all workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, Self


@dataclass(frozen=True)
class Round:
    """What has come together since the latest update.

    Attributes:
        pushes: that are accumulated.
        version: of the parameters now.
        pulled: the versions that workers compute on now, in any order.
    """

    pushes: int
    version: int
    pulled: Collection[int] = ()

    @property
    def oldest(self) -> int:
        """Updates since the oldest of the pulls that workers compute on; 0 if nobody computes."""
        return self.version - min(self.pulled, default=self.version)


@dataclass(frozen=True)
class Standing:
    """Where a worker stands in the round since the latest update.

    Attributes:
        own: batches it has begun in this round.
        all: batches that all workers together have begun in this round.
        now: what has come together in it, and on which versions others compute.
    """

    own: int
    all: int
    now: Round = Round(0, 0)


class Rule(ABC):
    """How pushes become updates. What a rule does not answer itself, it answers as the hybrid does.

    Attributes:
        mode: its name, for ``--sync-mode``.
        summary: what it does, in a few words for ``--help``.
        accumulate: N, as ``--accumulate`` gives it.
        ordered: an update sums its pushes in the plan's order, not in that of their arrival.
        waits_for_update: a worker that must wait waits for an update, or for a batch that comes back; where it may
            wait for another's push too, this is False, and all who wait are asked again after every push.
    """

    mode: ClassVar[str]
    summary: ClassVar[str]
    ordered: ClassVar[bool] = False
    waits_for_update: ClassVar[bool] = False
    accumulate: int

    @classmethod
    @abstractmethod
    def of(cls, workers: int, accumulate: int | None) -> Self:
        """The rule for so many workers, with N = ``accumulate``; None: its own default.

        Raises:
            ValueError: it takes no such N.
        """

    @property
    @abstractmethod
    def pushes(self) -> int:
        """Pushes that one update sums; at least so many where `may_update` puts it off."""

    @property
    def name(self) -> str:
        """The short name: ``sync``, ``hybrid:4``."""
        return f"{self.mode}:{self.accumulate}"

    def counts(self, staleness: int) -> bool:  # noqa: ARG002
        """Whether a push that is ``staleness`` updates old enters the sum; if not, its batch is computed again."""
        return True

    def may_start(self, standing: Standing) -> bool:  # noqa: ARG002
        """Whether a worker may begin another batch now, or must wait."""
        return True

    def may_update(self, now: Round) -> bool:
        """Whether what is accumulated becomes an update now.

        Asked after each push, when a worker is gone, and when a run goes on, since nobody computes then.
        """
        return now.pushes >= self.pushes

    def staleness(self, workers: int) -> float:
        """The mean staleness to expect of a push, in updates, from so many workers.

        When a push arrives, each of the other workers has pulled and not yet pushed, however uneven their speeds are:
        it goes by W - 1 pulls. So by the average pull go W - 1 pushes, which are (W - 1) / N updates; none if the rule
        counts no older push.
        """
        return (workers - 1) / self.pushes if self.counts(1) else 0.0

    def held(self, workers: int) -> int:  # noqa: ARG002
        """Gradients that wait for their turn in the sum at most, from so many workers."""
        return 0

    def with_workers(self, workers: int) -> Rule | None:  # noqa: ARG002
        """The rule that makes the same update from the pushes of so many workers; None if there is none."""
        return self


@dataclass(frozen=True)
class Synchronous(Rule):
    """An update sums W x N pushes on one version; a worker waits for the update that holds its push."""

    mode: ClassVar[str] = "sync"
    summary: ClassVar[str] = "all workers wait for each update"
    ordered: ClassVar[bool] = True
    waits_for_update: ClassVar[bool] = True

    workers: int
    accumulate: int = 1

    @classmethod
    def of(cls, workers: int, accumulate: int | None) -> Self:
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


@dataclass(frozen=True)
class Hybrid(Rule):
    """An update sums N pushes from whoever delivers them; nobody waits. With N = 1 it is asynchronous SGD."""

    mode: ClassVar[str] = "hybrid"
    summary: ClassVar[str] = "an update sums N pushes of any workers"

    accumulate: int

    @classmethod
    def of(cls, workers: int, accumulate: int | None) -> Self:
        """N is twice the workers' number by default: a push is then less than half an update old on average."""
        return cls(accumulate or 2 * workers)

    @property
    def pushes(self) -> int:
        """N."""
        return self.accumulate


@dataclass(frozen=True)
class Asynchronous(Rule):
    """Each push is an update; nobody waits."""

    mode: ClassVar[str] = "async"
    summary: ClassVar[str] = "each push is an update"

    accumulate: int = field(default=1, init=False)

    @classmethod
    def of(cls, workers: int, accumulate: int | None) -> Self:  # noqa: ARG003
        """It has no N.

        Raises:
            ValueError: one was given that is not 1.
        """
        if accumulate not in (None, 1):
            raise ValueError("async applies every push by itself; to sum several before an update, choose hybrid")
        return cls()

    @property
    def pushes(self) -> int:
        """One."""
        return 1

    @property
    def name(self) -> str:
        """``async``."""
        return self.mode


RULES: dict[str, type[Rule]] = {rule.mode: rule for rule in (Synchronous, Asynchronous, Hybrid)}
"""Each rule by its mode."""

MODES = tuple(RULES)


def rule_for(mode: str, workers: int, accumulate: int | None = None) -> Rule:
    """The rule of a mode's name.

    Args:
        accumulate: N; None: what the mode has by default.

    Raises:
        ValueError: an unknown mode, a count below 1, or an N that the mode does not take.
    """
    if workers < 1 or (accumulate is not None and accumulate < 1):
        raise ValueError("workers and accumulate must be 1 or more")
    if mode not in RULES:
        raise ValueError(f"{mode!r} is not one of {', '.join(MODES)}")
    return RULES[mode].of(workers, accumulate)
