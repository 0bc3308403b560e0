"""Replays a journal on one process: every event must happen again, and the parameters come out bit-equal.

The journal says which worker began which batch at which moment; since a batch is begun on the newest parameters,
its gradient can be computed at that moment, in as many pieces as its push says. The coordinator that ran the real
cluster decides the rest again, and each of its decisions is compared with the recorded one.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator, TooManySetAside
from nmt_async.cluster.task import Computed, Task
from nmt_async.cluster.worker import pieces_of
from nmt_async.errors import RunFailure
from nmt_async.sync.compression.message import Form, Room, Slots
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import ParallelStore


class Computes(Protocol):
    """What computes gradients, as `nmt_async.cluster.worker.Worker` does."""

    @property
    def form(self) -> Form:
        """Of a push."""

    def compute(
        self,
        parameters: Tensor,
        gradient: Room,
        parts: Sequence[Batch],
        key: BatchId,
        pieces: int = 1,
        rate: float = 0.0,
    ) -> Computed:
        """Writes a gradient into ``gradient``."""


class Replay:
    """Drives a coordinator through recorded events.

    Args:
        build: makes a coordinator, given the function that takes its events and how many workers it has.
        worker: computes the gradients.
        data: the sentence pairs of the coordinator's plan.
        workers: with how many the recorded run began; where it went on with others, the journal says so.
        resumed: told the number of each later sitting before it begins; 0 where the journal does not say.
    """

    def __init__(
        self,
        build: Callable[[Callable[[Event], None], int], Coordinator],
        worker: Computes,
        data: ParallelStore,
        workers: int,
        resumed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.coordinator = build(self._compare, workers)
        self.worker = worker
        self.data = data
        self._build = build
        self._workers = workers
        self._resumed = resumed
        self._pulled: dict[int, Tensor] = {}
        self._left: dict[str, Tensor] = {}
        self.slots = Slots.of(worker.form, workers)
        self._computed: dict[int, Computed] = {}
        self._expected: deque[Event] = deque()

    def run(self, events: Iterable[Event], tell: Callable[[int], None] = lambda _: None) -> None:
        """Lets all events happen again.

        Args:
            events: those that stand, as `nmt_async.sync.journal.effective` gives them.
            tell: takes the version of the parameters after each event.

        Raises:
            RunFailure: something else happened than was recorded.
        """
        self._expected = deque(events)
        while self._expected:
            self._advance()
            tell(self.coordinator.server.version)

    def _advance(self) -> None:
        """Lets the next event happen, and those that follow from it."""
        event, left = self._expected[0], len(self._expected)
        try:
            self._happen(event)
        except (ValueError, IndexError) as error:
            raise RunFailure(f"the journal has ({event}), which cannot happen here: {error}.") from None
        if len(self._expected) == left:
            raise RunFailure(f"the journal has ({event}), which cannot happen here.")

    def _happen(self, event: Event) -> None:
        """Does what led to ``event``. SET_ASIDE and RESTARTED follow from others; so does UPDATED, but for a resume."""
        worker = event.worker
        if event.kind is not Kind.RESUMED and worker >= self._workers:
            return
        if event.kind is Kind.STARTED:
            self._start(worker)
        elif event.kind in (Kind.ACCUMULATED, Kind.REFUSED, Kind.NOT_FINITE):
            self._push(worker)
        elif event.kind is Kind.RETURNED:
            with contextlib.suppress(TooManySetAside):  # as in the run, which was saved then
                self.coordinator.died(worker)
        elif event.kind is Kind.UPDATED:
            self.coordinator.due()
        elif event.kind is Kind.STOPPED:
            if self.coordinator.ledger.stopped:  # version 0.1 recorded twice that a stream without rest had ended
                self._expected.popleft()
            self.coordinator.stop()
        elif event.kind is Kind.RESUMED:
            self._resume(event)
        elif event.kind is Kind.READMITTED:
            self.coordinator.readmit(worker, event.batch, event.version, self._pulled.get(worker))
            if self.coordinator.server.residuals is not None:
                self.coordinator.server.residuals.readmit(worker, self._left)

    def _start(self, worker: int) -> None:
        task = self.coordinator.next_task(worker)
        if task is None:
            return
        server = self.coordinator.server
        end = self._recorded_end(worker, task)
        if end is None or end.kind is not Kind.RESTARTED:
            parts, pulled = self.data.batches(task.parts), server.offered
            pieces = pieces_of([len(part) for part in parts], end.pieces if end is not None else 1)
            room = self.slots.room(worker, server.residual_rows, task.residual)
            self._computed[worker] = self.worker.compute(pulled, room, parts, task.batch, pieces, task.rate)
        server.computed(worker)

    def _recorded_end(self, worker: int, task: Task) -> Event | None:
        """How this task ended; None if it did not."""
        ends = (Kind.ACCUMULATED, Kind.REFUSED, Kind.NOT_FINITE, Kind.RETURNED, Kind.RESTARTED)
        pushes = (event for event in self._expected if event.worker == worker and event.kind in ends)
        return next((event for event in pushes if event.batch == task.batch), None)

    def _push(self, worker: int) -> None:
        if worker in self._computed:
            with contextlib.suppress(TooManySetAside):
                computed = self._computed[worker]
                self.coordinator.push(worker, computed, self.slots.message(worker, computed.entries))

    def _resume(self, event: Event) -> None:
        """The run goes on with as many workers as the event says, 0: as many as before."""
        server = self.coordinator.server
        held = ((worker, server.pulled(worker)) for worker in range(self._workers))
        self._pulled = {worker: pulled.clone() for worker, pulled in held if pulled is not None}
        if server.residuals is not None:
            under_way = server.residuals.under_way(range(self._workers))
            self._left = {name: left.clone() for name, left in under_way.items()}
        values, tensors = self.coordinator.state()
        if event.worker not in (0, self._workers):
            self._workers = event.worker
            self.coordinator = self._build(self._compare, self._workers)
            self.slots = self.slots.grown(self._workers)
        self.coordinator.restore(values, tensors, event.worker, event.tokens)
        self._resumed(event.tokens)

    def _compare(self, event: Event) -> None:
        recorded = self._expected.popleft() if self._expected else None
        if event.kind is Kind.NOT_FINITE and recorded is not None and recorded.kind is Kind.REFUSED:
            event = replace(event, kind=Kind.REFUSED, pieces=recorded.pieces)  # as version 0.1 recorded it
        if event != recorded:
            raise RunFailure(f"the replay came to ({event}){_unlike(event, recorded)}.")


def _unlike(event: Event, recorded: Event | None) -> str:
    """What was recorded in its place, or with other numbers."""
    if recorded is None:
        return ", and nothing more was recorded"
    if str(recorded) != str(event):
        return f" where ({recorded}) was recorded"
    there = ((name, getattr(event, name), value) for name, value in vars(recorded).items())
    return " with " + "; ".join(f"{name} {here} where {value} was recorded"
                                for name, here, value in there if here != value)  # fmt: skip
