"""Replays a journal on one process: every event must happen again, and the parameters come out bit-equal.

The journal says which worker began which batch at which moment; since a batch is begun on the newest parameters,
its gradient can be computed at that moment, in as many pieces as its push says. The coordinator that ran the real
cluster decides the rest again, and each of its decisions is compared with the recorded one.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable

import torch

from nmt_async.cluster.coordinator import Coordinator, TooManySetAside
from nmt_async.cluster.task import Computed, Task
from nmt_async.cluster.worker import Worker, pieces_of
from nmt_async.errors import RunFailure
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import ParallelStore


class Replay:
    """Drives a coordinator through recorded events.

    Args:
        build: makes a coordinator, given the function that takes its events and how many workers it has.
        worker: computes the gradients.
        data: the sentence pairs of the coordinator's plan.
        workers: with how many the recorded run began; where it went on with others, the journal says so.
    """

    def __init__(
        self,
        build: Callable[[Callable[[Event], None], int], Coordinator],
        worker: Worker,
        data: ParallelStore,
        workers: int,
    ) -> None:
        self.coordinator = build(self._compare, workers)
        self.worker = worker
        self.data = data
        self._build = build
        self._workers = workers
        self.slots = torch.zeros(workers, worker.layout.size)
        self._computed: dict[int, tuple[Task, Computed]] = {}
        self._expected: deque[Event] = deque()

    def run(self, events: Iterable[Event]) -> None:
        """Lets all events happen again.

        Args:
            events: those that stand, as `nmt_async.sync.journal.effective` gives them.

        Raises:
            RunFailure: something else happened than was recorded.
        """
        self._expected = deque(events)
        while self._expected:
            event, left = self._expected[0], len(self._expected)
            try:
                self._happen(event)
            except (ValueError, IndexError) as error:
                raise RunFailure(f"the journal has {event}, which cannot happen here: {error}.") from None
            if len(self._expected) == left:
                raise RunFailure(f"the journal has {event}, which cannot happen here.")

    def _happen(self, event: Event) -> None:
        """Does what led to ``event``. What follows from others (UPDATED, SET_ASIDE) never comes first."""
        worker = event.worker
        if event.kind is not Kind.RESUMED and worker >= self._workers:
            return
        if event.kind is Kind.STARTED:
            self._start(worker)
        elif event.kind in (Kind.ACCUMULATED, Kind.REFUSED):
            self._push(worker)
        elif event.kind is Kind.RETURNED:
            with contextlib.suppress(TooManySetAside):  # as in the run, which was saved then
                self.coordinator.died(worker)
        elif event.kind is Kind.STOPPED:
            self.coordinator.stop()
        elif event.kind is Kind.RESUMED:
            self._resume(worker)
        elif event.kind is Kind.READMITTED:
            self._readmit(event)

    def _start(self, worker: int) -> None:
        task = self.coordinator.next_task(worker)
        if task is not None:
            parts, parameters = self.data.batches(task.parts), self.coordinator.server.parameters
            pieces = pieces_of([len(part) for part in parts], self._recorded_parts(worker, task))
            self._computed[worker] = (
                task,
                self.worker.compute(parameters, self.slots[worker], parts, task.batch, pieces),
            )

    def _recorded_parts(self, worker: int, task: Task) -> int:
        """Of the push to which this task will come, if it counts."""
        ends = (Kind.ACCUMULATED, Kind.REFUSED, Kind.RETURNED)
        pushes = (event for event in self._expected if event.worker == worker and event.kind in ends)
        end = next((event for event in pushes if event.batch == task.batch), None)
        return end.parts if end is not None else 1

    def _push(self, worker: int) -> None:
        if worker in self._computed:
            _, computed = self._computed[worker]
            with contextlib.suppress(TooManySetAside):
                self.coordinator.push(worker, computed, self.slots[worker])

    def _resume(self, workers: int) -> None:
        """The run goes on with so many workers, 0: as many as before."""
        state = self.coordinator.state()
        if workers not in (0, self._workers):
            self._workers = workers
            self.coordinator = self._build(self._compare, workers)
            more = max(0, workers - len(self.slots))
            self.slots = torch.cat([self.slots, self.slots.new_zeros(more, self.slots.shape[1])])
        self.coordinator.restore(*state, workers)

    def _readmit(self, event: Event) -> None:
        if event.worker in self._computed:
            task, _ = self._computed[event.worker]
            self.coordinator.readmit(event.worker, BatchId(*task.batch), task.version)

    def _compare(self, event: Event) -> None:
        recorded = self._expected.popleft() if self._expected else None
        if event != recorded:
            raise RunFailure(f"the replay came to {event} where {recorded} was recorded.")
