"""The journal: what happened to every batch, in the order in which it happened, enough to replay the run.

One record is 32 bytes: kind, worker, epoch, number, version, tokens, pieces, stands. Floats are not recorded; a replay
computes them again and must find the same.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nmt_async.text.plan import BatchId


class Kind(enum.IntEnum):
    """A change of a batch's state (`nmt_async.sync.ledger`), or a mark of the run."""

    STARTED = 1  # waiting -> out, on a version
    ACCUMULATED = 2  # out -> accumulated
    UPDATED = 3  # all accumulated -> applied; version after it
    RETURNED = 4  # out -> waiting: its worker died, or the run stopped
    REFUSED = 5  # out -> waiting: too stale (in journals of version 0.1 also: not finite)
    SET_ASIDE = 6  # waiting -> set aside: it was returned or refused once too often
    STOPPED = 7  # the run ends: what is out returns, what is accumulated becomes an update
    RESUMED = 8  # a run goes on from a checkpoint of a version: what was out then is waiting
    READMITTED = 9  # waiting -> out: after a resume its worker holds the gradient it had, of an earlier version
    NOT_FINITE = 10  # out -> waiting: its gradient or loss is not finite
    RESTARTED = 11  # out -> waiting: its push would be too stale, so its worker stopped before it had it
    DEALT = 12  # several machines share the stream: these batches of an epoch are this machine's
    CONTRIBUTED = 13  # all stepped, or else all accumulated -> on the way to the joint update of all machines
    STEPPED = 14  # all accumulated -> in this machine's own parameters; version after it


@dataclass(frozen=True)
class Event:
    """One record; what a kind does not need is left at its default.

    Attributes:
        worker: of RESUMED: how many workers go on (0, as earlier versions wrote: as many as before).
        batch: of RESUMED: how many machines share the stream from here on, and which of them this is; 0, 0 where it is
            this machine's alone.
        tokens: of a push, an update or a contribution: its target tokens, on this machine. Of DEALT: how many
            batches, the first of which is ``batch``. Of RESUMED: the number of the sitting that it begins, as
            ``sittings.jsonl`` counts them (0, as earlier versions wrote: unknown).
        pieces: in which the push was computed. Of RESUMED: 0 where machines make updates of their own from here on. Of
            UPDATED: 0 where what was on the way had been in this machine's own parameters before, else 1. Of
            CONTRIBUTED: one more than the number of the machine's wish (`nmt_async.sync.between.contribution`).
        stands: of RESUMED: how many of the events that stood before it, other resumes not counted, stand still; those
            after them happened after the checkpoint and are void.
    """

    kind: Kind
    worker: int = 0
    batch: BatchId = BatchId(0, 0)
    version: int = 0
    tokens: int = 0
    pieces: int = 1
    stands: int = 0

    def __str__(self) -> str:
        """``started, batch 2 of epoch 1 by worker 0 on version 7``."""
        batch = BatchId(*self.batch)
        if self.kind is Kind.RESUMED:
            shared = f" machine {batch.number} of {batch.epoch}," if batch.epoch else ""
            return f"resumed,{shared} version {self.version}"
        if self.kind is Kind.DEALT:
            return f"dealt, {self.tokens} batches from number {batch.number} of epoch {batch.epoch} on"
        by = f" batch {batch.number} of epoch {batch.epoch} by worker {self.worker} on" if batch != (0, 0) else ""
        return f"{self.kind.name.lower().replace('_', ' ')},{by} version {self.version}"


_RECORD = struct.Struct("<BBHIIIQII")  # the worker's highest 8 bits stand before its lowest 16
RECORD_BYTES = _RECORD.size
MOST_WORKERS = 2**24
"""That a record can name."""
MOST = 2**32 - 1
"""The largest epoch, number of a batch, version, or count of events that a record can hold."""


def encode(event: Event) -> bytes:
    """One record of `RECORD_BYTES`."""
    epoch, number = event.batch
    high, low = divmod(event.worker, 1 << 16)
    return _RECORD.pack(
        event.kind, high, low, epoch, number, event.version, event.tokens, event.pieces, event.stands
    )  # fmt: skip


def decode(data: bytes) -> Iterator[Event]:
    """The events of whole records; a torn last record, as a crash leaves it, is passed over.

    Raises:
        ValueError: a record of an unknown kind.
    """
    whole = len(data) - len(data) % RECORD_BYTES
    for kind, high, low, epoch, number, version, tokens, pieces, stands in _RECORD.iter_unpack(data[:whole]):
        yield Event(Kind(kind), high << 16 | low, BatchId(epoch, number), version, tokens, pieces, stands)


def effective(events: Iterable[Event]) -> list[Event]:
    """The events that stand: without those that a resume from an earlier checkpoint made void.

    Raises:
        ValueError: events are missing before a resume.
    """
    kept: list[Event] = []
    counted = 0
    for event in events:
        if event.kind is not Kind.RESUMED:
            counted += 1
        elif event.stands > counted:
            raise ValueError(f"{event.stands - counted} events are missing before update {event.version}")
        else:
            while counted > event.stands:
                counted -= kept.pop().kind is not Kind.RESUMED
        kept.append(event)
    return kept
