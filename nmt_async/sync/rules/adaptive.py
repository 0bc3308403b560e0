"""Adaptive: an update waits for few pushes at first, when haste gains more than exactness, and for more later.

Each worker adds one push to an update and waits for it, and the update waits for the first K_t of the W workers. Who is
later goes on, and its push enters a later update (K-async SGD, Dutta et al. 2018). As training goes on K_t grows:

    K_t = min(N, max(K_t-1, round(K_0 sqrt(F_0 / F_t))))

by AdaSync (Dutta, Wang & Joshi 2020, arXiv 2003.10579), with F_0 the training loss at the beginning and F_t that of
now. There F is computed over all data from time to time. The server sees the losses of its pushes, so here F_0 is that
of the first update and F_t a running mean over the last `WINDOW` pushes, both per target token. So K_t is not quite
twice K_0 when a loss of translation has fallen from 9 nats to 2.5: whoever wants N = 4 in the end begins with 2.

With ``oldest_push`` and ``restart`` it is of the kind of ABS (Tan, Zhang & Zhu 2023, arXiv 2301.08895): K_t grows, and
workers with a high staleness restart. ABS lets the bound change with K_t and its workers take several steps of their
own; here the bound is the one given, and a worker's steps are ``--local-accumulate``'s.

K_0 = N = W with an oldest push of 0 is synchronous training. Nobody waits for ever: at most N <= W pushes are waited
for, and each worker that has none in the sum may add one that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Self

from nmt_async.sync.rules.rule import RefusesOld, Standing, Waiting

if TYPE_CHECKING:
    from nmt_async.sync.push import Update

WINDOW = 100
"""Pushes over which the present loss is a running mean."""


@dataclass(frozen=True)
class Losses:
    """Training losses per target token, in nats.

    Attributes:
        first: of the first update.
        mean: the running mean.
        pushes: in it.
    """

    first: float
    mean: float
    pushes: int

    def after(self, update: Update) -> Losses:
        """With those of one more update."""
        pushes = self.pushes + len(update.pushes)
        weight = len(update.pushes) / min(pushes, max(WINDOW, len(update.pushes)))
        return Losses(self.first, self.mean + weight * (update.loss / update.tokens - self.mean), pushes)


@dataclass(frozen=True)
class Adaptive(RefusesOld):
    """An update sums one push of each of the first K_t workers; see the head of this file.

    Attributes:
        first: K_0.
        waits_for: K_t.
        losses: that K_t was computed from; None before the first update.
    """

    mode: ClassVar[str] = "adaptive"
    summary: ClassVar[str] = "an update sums one push of the first workers, more of them as the loss falls"
    takes: ClassVar[frozenset[str]] = frozenset(("oldest_push", "older_pushes", "accumulate_first"))
    waits_for_update: ClassVar[bool] = True

    accumulate: int
    first: int = 1
    oldest_push: int | None = None
    restart: bool = False
    waits_for: int = 0
    losses: Losses | None = None

    def __post_init__(self) -> None:
        if not self.waits_for:
            object.__setattr__(self, "waits_for", self.first)

    @classmethod
    def of(cls, workers: int, accumulate: int | None, waiting: Waiting) -> Self:
        """N is the number of workers by default, and K_0 is 1.

        Raises:
            ValueError: more pushes than workers, more at first than at last, or nothing that could be restarted.
        """
        most = accumulate or workers
        first = 1 if waiting.accumulate_first is None else waiting.accumulate_first
        if most > workers:
            raise ValueError(f"each worker adds one push to an update, so {most} of them need as many workers")
        if not 1 <= first <= most:
            raise ValueError(f"an update waits for 1 to {most} pushes at first, not for {first}")
        cls.check_restart(waiting)
        return cls(most, first, waiting.oldest_push, waiting.restart)

    @property
    def pushes(self) -> int:
        """K_t."""
        return self.waits_for

    @property
    def most_pushes(self) -> int:
        """N."""
        return self.accumulate

    @property
    def name(self) -> str:
        """``adaptive:4``, and what else was given: ``adaptive:4+first:2+oldest:1+restart``."""
        first = "" if self.first == 1 else f"+first:{self.first}"
        return f"{super().name}{first}{self.suffix}"

    def may_start(self, standing: Standing) -> bool:
        """Unless a push of the worker waits for its update."""
        return standing.pushed == 0

    def staleness(self, workers: int) -> float:
        """(W - K) / K at most, with the K of now, and never above the bound.

        With an update each of the W - K workers that have no push in it becomes one update older.
        """
        mean = (workers - self.pushes) / self.pushes
        return mean if self.oldest_push is None else min(mean, float(self.oldest_push))

    @property
    def keeps_young(self) -> bool:
        """With a bound, or while K_t may grow."""
        return bool(self.oldest_push) or self.pushes < self.accumulate

    def with_workers(self, workers: int) -> Adaptive | None:
        """The same, where there are as many workers as an update may wait for."""
        return self if self.accumulate <= workers else None

    def after(self, update: Update) -> Adaptive:
        """With the K_t that the losses ask for."""
        loss = update.loss / update.tokens
        losses = Losses(loss, loss, len(update.pushes)) if self.losses is None else self.losses.after(update)
        wanted = self.first
        if losses.first > 0:
            wanted = round(self.first * sqrt(losses.first / losses.mean)) if losses.mean > 0 else self.accumulate
        return replace(self, losses=losses, waits_for=min(self.accumulate, max(self.waits_for, wanted)))

    def state(self) -> dict[str, Any]:
        """K_t, and the losses."""
        return {"waits_for": self.waits_for, "losses": None if self.losses is None else vars(self.losses)}

    def restored(self, state: Mapping[str, Any]) -> Adaptive:
        """As `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is none.
        """
        waits_for, losses = int(state["waits_for"]), state["losses"]
        if not self.first <= waits_for <= self.accumulate:
            raise ValueError(f"an update waits for {self.first} to {self.accumulate} pushes, not for {waits_for}")
        if losses is not None:
            losses = Losses(float(losses["first"]), float(losses["mean"]), int(losses["pushes"]))
        return replace(self, waits_for=waits_for, losses=losses)
