"""What a rule is asked: which pushes count, when their sum becomes an update, in whose order, and who must wait.

A mode is a rule, a small value that answers these questions. A rule also says what to expect of it, so that options,
plans and pages need not know one from another. A new mode is a class with these answers and its entry in `RULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from nmt_async.sync.push import Update


@dataclass(frozen=True)
class Waiting:
    """Who waits, and which pushes count, as options of their names say it beside the mode and N.

    Attributes:
        oldest_push: updates that a push may be old at most; an older one does not count. None: no bound.
        older_pushes: what a worker does whose push would not count: ``recompute`` or ``restart``.
        max_staleness: updates that a push may be old at most; an update waits for those who would become older. None:
            no bound.
        fastest: pushes of a synchronous round that its update waits for; None: all.
        balance: whoever is free takes the next batch of a synchronous round.
        accumulate_first: pushes that an adaptive update waits for at first; None: 1.
    """

    oldest_push: int | None = None
    older_pushes: str = "recompute"
    max_staleness: int | None = None
    fastest: int | None = None
    balance: bool = False
    accumulate_first: int | None = None

    @property
    def restart(self) -> bool:
        """Whether a worker stops at once when its push could not count any more."""
        return self.older_pushes == "restart"

    def given(self) -> list[str]:
        """The names of what is said."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]

    @classmethod
    def said_by(cls, options: Mapping[str, Any]) -> Self:
        """Of options by their keys, as a run's configuration has them; what is absent is not said.

        Raises:
            ValueError: a value of another kind.
        """
        found = {}
        for each in fields(cls):
            value = options.get(each.name.replace("_", "-"), each.default)
            kind = int if each.default is None else type(each.default)
            if type(value) is not kind and value != each.default:
                raise ValueError(f"{each.name.replace('_', '-')} is {str(value)[:50]!r}")
            found[each.name] = value
        return cls(**found)


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
        pushed: pushes of the worker that wait in the sum for their update.
    """

    own: int
    all: int
    now: Round = Round(0, 0)
    pushed: int = 0


class Rule(ABC):
    """How pushes become updates. What a rule does not answer itself, it answers as the hybrid does.

    Attributes:
        mode: its name, for ``--sync-mode``.
        summary: what it does, in a few words for ``--help``.
        takes: the names in `Waiting` that mean something to it.
        accumulate: N, as ``--accumulate`` gives it.
        waits_for_update: a worker that must wait waits for an update, or for a batch that comes back; where it may
            wait for another's push too, this is False, and all who wait are asked again after every push.
    """

    mode: ClassVar[str]
    summary: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    waits_for_update: ClassVar[bool] = False
    accumulate: int

    @classmethod
    @abstractmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:
        """The rule for so many workers, with N = ``accumulate``; None: its own default.

        Args:
            waiting: says nothing beyond what it `takes`.

        Raises:
            ValueError: it takes no such N, or the numbers do not go together.
        """

    @property
    @abstractmethod
    def pushes(self) -> int:
        """Pushes that the next update sums; at least so many where `may_update` puts it off."""

    @property
    def sums_more(self) -> bool:
        """Whether an update that is put off sums what comes meanwhile, too."""
        return False

    @property
    def most_pushes(self) -> int:
        """Pushes that an update sums in the end, where a rule lets their number grow."""
        return self.pushes

    @property
    def name(self) -> str:
        """The short name: ``sync``, ``hybrid:4``."""
        return f"{self.mode}:{self.accumulate}"

    @property
    def ordered(self) -> bool:
        """Whether an update sums its pushes in the plan's order, not in that of their arrival."""
        return False

    @property
    def restarts(self) -> bool:
        """Whether a worker stops at once when its push could not count any more, and begins another batch."""
        return False

    def counts(self, staleness: int) -> bool:  # noqa: ARG002
        """Whether a push that is ``staleness`` updates old enters the sum; if not, its batch is computed again.

        A push on the current version must count, and one that does not count must not count later. Then every refusal
        is paid for by an update that came after its pull, so that training goes on whatever the speeds are.
        """
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

    @property
    def keeps_young(self) -> bool:
        """Whether it refuses pushes or makes workers wait for their age, so that `staleness` is the most to expect."""
        return False

    def held(self, workers: int) -> int:  # noqa: ARG002
        """Gradients that wait for their turn in the sum at most, from so many workers."""
        return 0

    def after(self, update: Update) -> Rule:  # noqa: ARG002
        """The rule from here on: another where it learns from updates. What it learnt is its `state`."""
        return self

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores of it: plain values, none unless it learns from updates."""
        return {}

    def restored(self, state: Mapping[str, Any]) -> Rule:  # noqa: ARG002
        """The rule as `state` was taken of it.

        Raises:
            LookupError, TypeError, ValueError: it is not what `state` gives.
        """
        return self

    def with_workers(self, workers: int) -> Rule | None:  # noqa: ARG002
        """The rule that makes the same update from the pushes of so many workers; None if there is none."""
        return self

    def with_pushes(self, pushes: float, workers: int) -> Rule:  # noqa: ARG002
        """The rule whose updates sum nearest to so many pushes of so many workers; itself if it takes no other."""
        return self


class RefusesOld(Rule):
    """A rule for which a push may be too old.

    Attributes:
        oldest_push: updates that a push may be old at most; None: no bound.
        restart: a worker stops at once when its push could not count any more.
    """

    oldest_push: int | None
    restart: bool

    @staticmethod
    def check_restart(waiting: Waiting) -> None:
        """Raises ValueError where nothing could be restarted."""
        if waiting.restart and waiting.oldest_push is None:
            raise ValueError("no push is too old without a bound, so no worker restarts; give the oldest push, too")

    @property
    def suffix(self) -> str:
        """What the short name says of it: ``+oldest:1+restart``."""
        oldest = "" if self.oldest_push is None else f"+oldest:{self.oldest_push}"
        return f"{oldest}{'+restart' if self.restart else ''}"

    @property
    def restarts(self) -> bool:
        """As asked for."""
        return self.restart

    def counts(self, staleness: int) -> bool:
        """Up to the oldest push."""
        return self.oldest_push is None or staleness <= self.oldest_push
