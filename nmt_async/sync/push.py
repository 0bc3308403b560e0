"""What goes into the server and what comes out: pushes, verdicts, updates."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nmt_async.text.plan import BatchId


@dataclass(frozen=True)
class Push:
    """A gradient on its way into an update, without the gradient itself.

    Attributes:
        worker: who computed it.
        batch: of what.
        version: the parameters' version it was computed on.
        tokens: target tokens it is summed over.
        source_tokens: source tokens of the batch.
        sentences: sentence pairs of the batch.
        loss: training loss summed over target tokens, in nats.
        gradient_norm: its Euclidean norm; not finite if any element is not.
        position: epochs gone by at the end of its batch, as a fraction.
        pieces: in which the worker computed it.
        bytes: that crossed with it; 0: unknown.
    """

    worker: int
    batch: BatchId
    version: int
    tokens: int
    source_tokens: int = 0
    sentences: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    position: float = 0.0
    pieces: int = 1
    bytes: int = 0


class Verdict(enum.Enum):
    """What became of a push. All but ACCEPTED send its batch back."""

    ACCEPTED = "accepted"
    STALE = "stale"
    NOT_FINITE = "not finite"


@dataclass(frozen=True)
class Update:
    """One application of the accumulated gradient.

    Attributes:
        version: the parameters' version after it; versions count updates.
        pushes: what it sums, in the order of summation.
        staleness: of each push, updates applied between its pull and this update.
        learning_rate: used.
        gradient_norm: Euclidean norm of the gradient per target token, before clipping.
    """

    version: int
    pushes: tuple[Push, ...]
    staleness: tuple[int, ...]
    learning_rate: float
    gradient_norm: float

    @property
    def tokens(self) -> int:
        """The effective batch: target tokens in this update."""
        return sum(push.tokens for push in self.pushes)

    @property
    def loss(self) -> float:
        """Training loss summed over target tokens, in nats."""
        return sum(push.loss for push in self.pushes)


@dataclass(frozen=True)
class Answer:
    """What becomes of a push, and the update that is due with it, if one is."""

    verdict: Verdict
    update: Update | None = None
