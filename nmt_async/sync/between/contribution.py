"""What a machine brings to an exchange beside its vector, and what all of them bring together.

Every machine hears the same contributions, and comes to the same conclusions: how many updates there are, when the run
stops, and which batches are done with are never decided by one of them alone.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nmt_async.sync.push import Push
from nmt_async.text.plan import BatchId


class Wish(enum.IntEnum):
    """What a machine wants the run to do after this exchange. The highest wish of all of them counts."""

    GO_ON = 0
    SETTLE = 1  # a checkpoint is due, for which all must agree on all parameters
    STOP = 2  # the run has come to its end
    PAUSE = 3  # a signal ended it: it goes on later as if nothing had been


@dataclass(frozen=True)
class Contribution:
    """What one machine brings.

    Attributes:
        pushes: summed in its vector.
        wanted: batches that it would like to be dealt.
        left: batches of its own that it has still to contribute.
        set_aside: batches that failed too often since its last contribution.
        wish: what it wants the run to do.
        version: of its parameters.
        staleness: of each push at the machine's own update; empty where all machines make it together.
        moved: whether its vector holds anything; the pushes of a fragment may have come with earlier exchanges.
        computing, waiting: seconds since its last contribution, summed over its workers.
    """

    pushes: tuple[Push, ...]
    wanted: int
    left: int
    set_aside: tuple[BatchId, ...] = ()
    wish: Wish = Wish.GO_ON
    version: int = 0
    staleness: tuple[int, ...] = ()
    moved: bool = True
    computing: float = 0.0
    waiting: float = 0.0

    def encode(self) -> bytes:
        """As it crosses the network."""
        ages = self.staleness or (0,) * len(self.pushes)
        counts = len(self.pushes), len(self.set_aside), len(self.staleness)
        said = self.wanted, self.left, self.version, self.wish, self.moved
        head = _HEAD.pack(*counts, *said, self.computing, self.waiting)
        aside = b"".join(_BATCH.pack(*batch) for batch in self.set_aside)
        return head + aside + b"".join(map(_encoded, self.pushes, ages))

    @classmethod
    def decode(cls, data: bytes) -> Contribution:
        """What `encode` gave, with or without bytes after it.

        Raises:
            ValueError: something else.
        """
        try:
            pushes, aside, ages, wanted, left, version, wish, moved, *seconds = _HEAD.unpack_from(data)
            batches = [BatchId(*_BATCH.unpack_from(data, _HEAD.size + index * _BATCH.size)) for index in range(aside)]
            begin = _HEAD.size + aside * _BATCH.size
            found = [_decoded(data, begin + index * _PUSH.size) for index in range(pushes)]
        except struct.error as error:
            raise ValueError(f"no contribution: {error}") from None
        if ages not in (0, pushes):
            raise ValueError(f"no contribution: {ages} ages of {pushes} pushes")
        staleness = tuple(age for _, age in found) if ages else ()
        accumulated = tuple(push for push, _ in found)
        return cls(accumulated, wanted, left, tuple(batches), Wish(wish), version, staleness, moved, *seconds)


_HEAD = struct.Struct("<IIIIIIB?dd")
_BATCH = struct.Struct("<II")
_PUSH = struct.Struct("<IIIIIIIQQdddQ")


def _encoded(push: Push, age: int) -> bytes:
    return _PUSH.pack(
        push.worker, *push.batch, push.version, push.sentences, push.pieces, age, push.tokens, push.source_tokens,
        push.loss, push.gradient_norm, push.position, push.bytes,
    )  # fmt: skip


def _decoded(data: bytes, begin: int) -> tuple[Push, int]:
    (worker, epoch, number, version, sentences, pieces, age, tokens, source_tokens, loss, norm, position, crossed) = (
        _PUSH.unpack_from(data, begin)
    )
    batch = BatchId(epoch, number)
    push = Push(
        worker, batch, version, tokens, source_tokens, sentences, loss, norm, position, pieces, crossed
    )  # fmt: skip
    return push, age


@dataclass(frozen=True)
class Joint:
    """What all machines bring to one exchange, in the order of the machines."""

    contributions: Sequence[Contribution]

    @cached_property
    def pushes(self) -> tuple[Push, ...]:
        """Of all machines."""
        return tuple(push for contribution in self.contributions for push in contribution.pushes)

    @property
    def wish(self) -> Wish:
        """What the run does now."""
        return max(contribution.wish for contribution in self.contributions)
