"""The ledger: where every batch is, on which version of the parameters, and with whom.

A batch is *waiting*, *out* with one worker, *accumulated* in the server's sum, *applied* in an update, or *set aside*
after it failed too often. The ledger learns everything from events (`take`), in a live run as it learns them later from
the journal; what cannot have happened is refused. So whoever reads a journal to its end knows that each batch of it
counts once, or was set aside, and that none was passed over.

Only what is under way is stored: a batch before the stream's `position` that is none of these is applied. So the memory
does not grow with the corpus.

Where several machines share the stream, each has a ledger of the batches that it was dealt
(`nmt_async.sync.between`). A contribution takes what is accumulated *on the way* into a joint update, and only then it
is applied. Whatever is not applied when a run goes on is dealt anew, and may become another machine's.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import shown
from nmt_async.sync.journal import MOST, Event, Kind
from nmt_async.sync.push import Push
from nmt_async.sync.rules import Round, Standing
from nmt_async.text.plan import BatchId


@dataclass(frozen=True)
class Begun:
    """A batch that a worker has begun, and the version of the parameters that it computes on."""

    batch: BatchId
    version: int


@dataclass(frozen=True)
class Delivered:
    """Whose push of a batch is accumulated: the worker, the version that it computed on, and its target tokens."""

    worker: int
    version: int
    tokens: int


class Ledger:
    """Where every batch of the stream is; see the head of this file.

    Args:
        batches: how many an epoch has. None where nobody knows: then the ledger cannot say what comes next, and
            believes that an epoch ends where the next one begins.
        last_epoch: the stream ends after it; None: it never ends.

    Attributes:
        version: of the parameters; it counts updates.
        dealt: batches that are this machine's and were never begun, in their order; None where the stream is not
            shared.
        stepped: what is in this machine's own parameters, and was not contributed yet.
        on_the_way: what is in a contribution that has not become an update yet.
        position: the first batch of the stream that was never begun.
        waiting: those that were given back, in the stream's order; they come before ``position``.
        refused: of those, who computed it last where its push was too stale, or would have been.
        out: what each worker is at.
        accumulated: what is in the sum of the next update.
        applied: how many batches were applied, since this ledger was made.
        set_aside: those that failed too often, in the order in which it was said.
        failures: of a batch that was given back, how often for which reason: Kind.RETURNED by a death, Kind.NOT_FINITE.
        stopped: the run has been ended, and nothing was begun since.
        events: how many there were, without the resumes.
    """

    def __init__(self, batches: Callable[[int], int] | None = None, last_epoch: int | None = None) -> None:
        self.batches = batches
        self.last_epoch = last_epoch
        self.dealt: list[BatchId] | None = None
        self.stepped: dict[BatchId, Delivered] = {}
        self.on_the_way: dict[BatchId, Delivered] = {}
        self.version = 0
        self.position = BatchId(1, 0)
        self.waiting: list[BatchId] = []
        self.refused: dict[BatchId, int] = {}
        self.out: dict[int, Begun] = {}
        self.accumulated: dict[BatchId, Delivered] = {}
        self.applied = 0
        self.set_aside: list[BatchId] = []
        self.failures: dict[BatchId, Counter[Kind]] = {}
        self.stopped = False
        self.events = 0
        self._undelivered: list[BatchId] = []  # what is out or waiting, in the stream's order
        self._round: Counter[int] = Counter()  # batches of each worker on this version, out or accumulated
        self._round_total = 0
        self._delivered: Counter[int] = Counter()  # of each worker, what is accumulated
        self._contributed = 0  # the version of the latest contribution

    # What others ask

    def next(self, worker: int) -> BatchId | None:
        """The batch that ``worker`` is to begin next: the first that waits, or the first that was never begun.

        A worker that was too slow for a batch leaves it to the others while there is another one. So no batch stays
        with a worker that is always too slow.
        """
        for batch in self.waiting:
            if self.refused.get(batch) != worker:
                return batch
        if not self._at_end():
            return self.position if self.dealt is None else self.dealt[0]
        return self.waiting[0] if self.waiting else None

    def upcoming(self, count: int) -> list[BatchId]:
        """Up to ``count`` batches that will be begun next, if nothing happens to others."""
        found = self.waiting[:count]
        if self.dealt is not None:
            return found + self.dealt[: count - len(found)]
        position = self.position
        while len(found) < count and (self.last_epoch is None or position.epoch <= self.last_epoch):
            found.append(position)
            position = self._following(position)
        return found

    def _at_end(self) -> bool:
        """Whether there is nothing that was never begun."""
        if self.dealt is not None:
            return not self.dealt
        return self.last_epoch is not None and self.position.epoch > self.last_epoch

    @property
    def finished(self) -> bool:
        """True when every batch of a finite stream, or of those that were dealt, is accumulated or further."""
        return self._at_end() and not self._undelivered

    def standing(self, worker: int) -> Standing:
        """What is out or accumulated on the current version."""
        return Standing(self._round[worker], self._round_total, self.round(), self._delivered[worker])

    def round(self) -> Round:
        """What has come together since the latest update."""
        return Round(len(self.accumulated), self.version, _Versions(self.out))

    def awaited(self, besides: BatchId) -> BatchId | None:
        """The first batch in the stream's order, ``besides`` one, that was begun and has not been delivered."""
        return next((batch for batch in self._undelivered[:2] if batch != besides), None)

    # What is told

    def take(self, event: Event) -> None:
        """One more event.

        Raises:
            ValueError: it cannot have happened: nothing is changed.
        """
        batch = BatchId(*event.batch)
        match event.kind:
            case Kind.STARTED:
                self._start(event, batch)
            case Kind.READMITTED:
                self._expect(event, batch in self.waiting, "it was not waiting")
                self._expect(event, event.worker not in self.out, "that worker was at another batch")
                self._drop(self.waiting, batch)
                self.refused.pop(batch, None)
                self._give(event.worker, batch, event.version)
            case Kind.ACCUMULATED:
                self._leave_worker(event, batch)
                self._drop(self._undelivered, batch)
                self.accumulated[batch] = Delivered(event.worker, event.version, event.tokens)
                self._delivered[event.worker] += 1
                self._count(event.worker, event.version)
            case Kind.RETURNED | Kind.REFUSED | Kind.NOT_FINITE | Kind.RESTARTED:
                self._leave_worker(event, batch)
                bisect.insort(self.waiting, batch)
                if event.kind in (Kind.REFUSED, Kind.RESTARTED):
                    self.refused[batch] = event.worker
                if event.kind is Kind.NOT_FINITE or (event.kind is Kind.RETURNED and not self.stopped):
                    self.failures.setdefault(batch, Counter())[event.kind] += 1
            case Kind.SET_ASIDE:
                self._expect(event, batch in self.waiting, "it had not been given back")
                self._drop(self.waiting, batch)
                self._drop(self._undelivered, batch)
                self.failures.pop(batch, None)
                self.refused.pop(batch, None)
                self.set_aside.append(batch)
            case Kind.UPDATED:
                self._update(event)
            case Kind.STOPPED:
                self.stopped = True
            case Kind.DEALT:
                self._deal(event, batch)
            case Kind.CONTRIBUTED:
                self._contribute(event)
            case Kind.STEPPED:
                self._step(event)
            case Kind.RESUMED if batch.epoch:  # the stream is shared; the state may be another machine's
                self.version = event.version
                self._recall()
            case Kind.RESUMED:
                self._expect(event, self.dealt is None, "the stream was shared")
                self._expect_version(event, self.version)
                self._resume()
        self.events += event.kind is not Kind.RESUMED

    def _start(self, event: Event, batch: BatchId) -> None:
        self._expect(event, event.worker not in self.out, "that worker was at another batch")
        self._expect_version(event, self.version)
        first = next((other for other in self.waiting if self.refused.get(other) != event.worker), None)
        if first is not None or batch in self.waiting[:1]:
            self._expect(event, batch in (first, self.waiting[0]), f"batch {_name(self.waiting[0])} came before it")
            self._drop(self.waiting, batch)
            self.refused.pop(batch, None)
        else:
            self._expect(event, not self._at_end(), "the stream had ended" if self.dealt is None else "none was dealt")
            self._begin(event, batch)
        self._give(event.worker, batch, event.version)
        self.stopped = False

    def _begin(self, event: Event, batch: BatchId) -> None:
        """A batch that was never begun is begun."""
        if self.dealt is not None:
            self._expect(event, batch == self.dealt[0], f"batch {_name(self.dealt[0])} comes next")
            bisect.insort(self._undelivered, self.dealt.pop(0))
        else:
            follows = batch == self.position or (
                self.batches is None and self.position.number > 0 and batch == BatchId(self.position.epoch + 1, 0)
            )
            self._expect(event, follows, f"batch {_name(self.position)} comes next")
            self.position = self._following(batch)
            self._undelivered.append(batch)

    def _following(self, batch: BatchId) -> BatchId:
        at_end = self.batches is not None and batch.number + 1 >= self.batches(batch.epoch)
        return BatchId(batch.epoch + 1, 0) if at_end else BatchId(batch.epoch, batch.number + 1)

    @staticmethod
    def _drop(batches: list[BatchId], batch: BatchId) -> None:
        """Takes one out of a sorted list, without looking through all of it."""
        del batches[bisect.bisect_left(batches, batch)]

    def _give(self, worker: int, batch: BatchId, version: int) -> None:
        self.out[worker] = Begun(batch, version)
        self._count(worker, version)

    def _leave_worker(self, event: Event, batch: BatchId) -> None:
        begun = self.out.get(event.worker)
        had = f"worker {event.worker} was at {f'batch {_name(begun.batch)}' if begun else 'nothing'}"
        self._expect(event, begun is not None and begun.batch == batch, had)
        assert begun is not None
        self._expect_version(event, begun.version)
        del self.out[event.worker]
        self._count(event.worker, begun.version, -1)

    def _update(self, event: Event) -> None:
        shared = self.dealt is not None
        becomes = self.on_the_way if shared else self.accumulated
        tokens = sum(delivered.tokens for delivered in becomes.values())
        self._expect(event, shared or bool(becomes), "nothing had been accumulated")
        self._expect(event, tokens == event.tokens, f"{tokens:,} tokens {_WERE[shared]}")
        since = self.version - self._contributed  # by updates of this machine's own
        if event.pieces:
            self._expect_version(event, self.version + 1)
            self.version = event.version
        else:  # others may have made more updates of their own
            known = shared and event.version >= self._contributed
            self._expect(event, known, f"the version was {self._contributed}")
            self.version = event.version + since
        self.applied += len(becomes)
        for batch in becomes:
            self.failures.pop(batch, None)
        if shared:
            self.on_the_way = {}
        else:
            self.accumulated = {}
            self._begin_round()

    def _deal(self, event: Event, first: BatchId) -> None:
        self._expect(event, self.dealt is not None, "the stream was not shared")
        assert self.dealt is not None
        batches = [BatchId(first.epoch, first.number + index) for index in range(event.tokens)]
        known = {
            *self.dealt, *self._undelivered, *self.accumulated, *self.stepped, *self.on_the_way, *self.set_aside,
        }  # fmt: skip
        self._expect(event, bool(batches) and known.isdisjoint(batches), "it had some of them already")
        self.dealt += batches

    def _step(self, event: Event) -> None:
        tokens = sum(delivered.tokens for delivered in self.accumulated.values())
        self._expect(event, self.dealt is not None, "the stream was not shared")
        self._expect(event, bool(tokens) and tokens == event.tokens, f"{tokens:,} tokens {_WERE[False]}")
        self._expect_version(event, self.version + 1)
        self.version += 1
        self.stepped |= self.accumulated
        self.accumulated = {}
        self._begin_round()

    def _contribute(self, event: Event) -> None:
        leaves = self.stepped or self.accumulated
        tokens = sum(delivered.tokens for delivered in leaves.values())
        self._expect(event, self.dealt is not None, "the stream was not shared")
        self._expect(event, not self.on_the_way, "another contribution was on its way")
        self._expect(event, tokens == event.tokens, f"{tokens:,} tokens {_WERE[False]}")
        self._expect_version(event, self.version)
        self.on_the_way = leaves
        self._contributed = self.version
        if self.stepped:
            self.stepped = {}
        else:
            self.accumulated = {}
        self._begin_round()

    def _recall(self) -> None:
        """Whatever is not applied will be dealt anew, and may become another machine's."""
        self.dealt = []
        self.waiting, self._undelivered = [], []
        self.out, self.accumulated, self.stepped, self.on_the_way = {}, {}, {}, {}
        self.refused, self.failures = {}, {}
        self._begin_round()
        self.stopped = False

    def _resume(self) -> None:
        """What was out waits; its workers are gone, and that is no failure."""
        self.waiting = list(self._undelivered)
        self.out = {}
        self._begin_round()
        self.stopped = False

    def _begin_round(self) -> None:
        self._round = Counter()
        self._round_total = 0
        self._delivered = Counter(delivered.worker for delivered in self.accumulated.values())
        for delivered in self.accumulated.values():
            self._count(delivered.worker, delivered.version)
        if self.dealt is not None:
            for worker, begun in self.out.items():
                self._count(worker, begun.version)

    def _count(self, worker: int, version: int, change: int = 1) -> None:
        """A batch of this round is begun, or is not any more; those on earlier versions do not count.

        Between machines a round goes from contribution to contribution, and what is out will be in the next one.
        """
        if version == self.version or self.dealt is not None:
            self._round[worker] += change
            self._round_total += change

    def _expect_version(self, event: Event, version: int) -> None:
        self._expect(event, event.version == version, f"the version was {version}")

    def _expect(self, event: Event, possible: bool, otherwise: str) -> None:
        if not possible:
            raise ValueError(f"{event}, cannot be: {otherwise}")

    # What a checkpoint stores

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores, besides the server's state; batches that are out count as waiting."""
        return {
            "position": list(self.position),
            "waiting": [list(batch) for batch in self._undelivered],
            "refused": [[list(batch), worker] for batch, worker in sorted(self.refused.items())],
            "set_aside": [list(batch) for batch in self.set_aside],
            "failures": [[list(batch), {kind.name: count for kind, count in counts.items()}]
                         for batch, counts in self.failures.items()],
            "events": self.events,
        }  # fmt: skip

    def restore(self, state: dict[str, Any], version: int, accumulated: Iterable[Push]) -> None:
        """Takes up where `state` was taken; nobody is at anything.

        Args:
            version: the server's.
            accumulated: the pushes in the server's sum.

        Raises:
            LookupError, TypeError, ValueError: it is no state, or of another plan.
        """
        self.version = _counted(version)
        self.position = self._known(state["position"])
        self.out = {}
        self.waiting = sorted(map(self._known, state["waiting"]))
        self._undelivered = list(self.waiting)
        self.refused = {self._known(batch): int(worker) for batch, worker in state.get("refused", [])}
        self.accumulated = {
            self._known(push.batch): Delivered(push.worker, push.version, push.tokens) for push in accumulated
        }
        begun = [*self.waiting, *self.accumulated]
        if len(set(begun)) < len(begun) or any(batch >= self.position for batch in begun):
            raise ValueError("a batch is in two places, or was given back before it was begun")
        self.set_aside = list(map(_batch, state["set_aside"]))
        self.failures = {
            self._known(batch): Counter({Kind[name]: int(count) for name, count in counts.items()})
            for batch, counts in state["failures"]
        }
        self.stopped = False
        self.events = _counted(int(state["events"]))
        self._begin_round()

    def _known(self, values: Any) -> BatchId:
        batch = _batch(values)
        if self.batches is not None and batch.number >= self.batches(batch.epoch):
            raise ValueError(f"the plan has no batch {_name(batch)}")
        return batch


_WERE = {False: "had been accumulated", True: "were on the way"}


class _Versions(Collection[int]):
    """The versions in ``out``, seen through it: a rule that does not ask for them costs nothing."""

    def __init__(self, out: dict[int, Begun]) -> None:
        self._out = out

    def __iter__(self) -> Iterator[int]:
        return (begun.version for begun in self._out.values())

    def __len__(self) -> int:
        return len(self._out)

    def __contains__(self, version: object) -> bool:
        return any(begun.version == version for begun in self._out.values())


def _name(batch: BatchId) -> str:
    return f"{batch.number} of epoch {batch.epoch}"


def _batch(values: Any) -> BatchId:
    epoch, number = values
    if type(epoch) is not int or type(number) is not int or not (1 <= epoch <= MOST and 0 <= number <= MOST):
        raise ValueError(f"{shown(values)} is no batch")
    return BatchId(epoch, number)


def _counted(count: int) -> int:
    if not 0 <= count <= MOST:
        raise ValueError(f"{shown(count)} is not from 0 to {MOST:,}")
    return count


def of_dispatcher(state: dict[str, Any], events: int) -> dict[str, Any]:
    """A state as `Ledger.restore` takes it, of one that version 0.1 stored, when a dispatcher knew of the batches.

    Raises:
        LookupError, TypeError, ValueError: it is none.
    """
    reasons = {"death": Kind.RETURNED.name, "not finite": Kind.NOT_FINITE.name}
    failures = [[batch, {reasons[reason]: n for reason, n in counts.items()}] for batch, counts in state["failures"]]
    return {
        "position": state["position"], "waiting": state["returned"], "set_aside": state["set_aside"],
        "failures": failures, "events": events,
    }  # fmt: skip


def ledger_of(events: Iterable[Event], batches: Callable[[int], int] | None = None) -> Ledger:
    """Where every batch is after ``events``.

    Args:
        events: those that stand, as `nmt_async.sync.journal.effective` gives them.
        batches: how many an epoch has, where that is known.

    Raises:
        ValueError: one of them cannot have happened.
    """
    ledger = Ledger(batches)
    for event in events:
        ledger.take(event)
    return ledger
