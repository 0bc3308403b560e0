"""When pushes become an update: a mode is a small value that answers a few questions.

*Which pushes count*, *how many become an update*, *in whose order they are summed*, and *who must wait*. A new mode is
a class with these answers (and the line in `rule_for` that names it). Synchronous, asynchronous and hybrid are those of
Aji & Heafield 2019, section 3; their hybrid sums in the server over all workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

MODES = ("sync", "async", "hybrid")


@dataclass(frozen=True)
class Standing:
    """Where a worker stands in the round since the latest update.

    Attributes:
        own: batches it has begun in this round.
        all: batches that all workers together have begun in this round.
    """

    own: int
    all: int


class Rule(Protocol):
    """How pushes become updates."""

    @property
    def ordered(self) -> bool:
        """True if an update sums its pushes in the plan's order, not in that of their arrival."""

    @property
    def pushes(self) -> int:
        """Pushes that one update sums."""

    def counts(self, staleness: int) -> bool:
        """Whether a push that is ``staleness`` updates old enters the sum; if not, its batch is computed again."""

    def may_start(self, standing: Standing) -> bool:
        """Whether a worker may begin another batch now, or must wait for an update."""


@dataclass(frozen=True)
class Synchronous:
    """An update sums W x N pushes on one version; a worker waits for the update that holds its push."""

    workers: int
    accumulate: int = 1
    ordered: bool = True

    @property
    def pushes(self) -> int:
        """W x N."""
        return self.workers * self.accumulate

    def counts(self, staleness: int) -> bool:
        """Only pushes on the current version."""
        return staleness == 0

    def may_start(self, standing: Standing) -> bool:
        """N batches a worker and round."""
        return standing.own < self.accumulate and standing.all < self.pushes


@dataclass(frozen=True)
class Hybrid:
    """An update sums N pushes from whoever delivers them; nobody waits. With N = 1 it is asynchronous SGD."""

    accumulate: int
    ordered: bool = False

    @property
    def pushes(self) -> int:
        """N."""
        return self.accumulate

    def counts(self, staleness: int) -> bool:  # noqa: ARG002
        """All of them."""
        return True

    def may_start(self, standing: Standing) -> bool:  # noqa: ARG002
        """Always."""
        return True


def rule_for(mode: str, workers: int, accumulate: int) -> Rule:
    """The rule of a mode's name.

    Raises:
        ValueError: an unknown mode, a count below 1, or asynchronous updates that sum more than one push.
    """
    if workers < 1 or accumulate < 1:
        raise ValueError("workers and accumulate must be 1 or more")
    if mode == "sync":
        return Synchronous(workers, accumulate)
    if mode == "hybrid":
        return Hybrid(accumulate)
    if mode == "async":
        if accumulate != 1:
            raise ValueError("async applies every push by itself; to sum several before an update, choose hybrid")
        return Hybrid(1)
    raise ValueError(f"{mode!r} is not one of {', '.join(MODES)}")
