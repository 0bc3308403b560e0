"""Replays a journal on one process: every event must happen again, and the parameters come out bit-equal.

The journal says which worker began which batch at which moment; since a batch is begun on the newest parameters,
its gradient can be computed at that moment. The coordinator that ran the real cluster decides the rest again, and
each of its decisions is compared with the recorded one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import torch

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker
from nmt_async.errors import RunFailure
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.prepared import ParallelStore


class Replay:
    """Drives a coordinator through recorded events.

    Args:
        build: makes the coordinator, given the function that takes its events.
        worker: computes the gradients.
        data: the sentence pairs of the coordinator's plan.
        workers: how many workers the recorded run had.
    """

    def __init__(
        self,
        build: Callable[[Callable[[Event], None]], Coordinator],
        worker: Worker,
        data: ParallelStore,
        workers: int,
    ) -> None:
        self.coordinator = build(self._compare)
        self.worker = worker
        self.data = data
        self.slots = torch.zeros(workers, worker.layout.size)
        self._computed: dict[int, Computed] = {}
        self._expected: deque[Event] = deque()

    def run(self, events: Sequence[Event]) -> None:
        """Lets all events happen again.

        Raises:
            RunFailure: something else happened than was recorded.
        """
        self._expected = deque(events)
        while self._expected:
            self._happen(self._expected[0])

    def _happen(self, event: Event) -> None:
        worker = event.worker
        if event.kind is Kind.STARTED:
            task = self.coordinator.next_task(worker)
            if task is None:
                raise RunFailure(f"the replay has no batch for worker {worker} where {event} was recorded.")
            batch = self.data.batch(task.sentences)
            parameters = self.coordinator.server.parameters
            self._computed[worker] = self.worker.compute(parameters, self.slots[worker], batch, task.batch)
        elif event.kind is Kind.STOPPED:
            self.coordinator.stop()
        elif event.kind is Kind.RESUMED:
            self._expected.popleft()
            self.coordinator.record = lambda _event: None
            self.coordinator.give_back_all()
            self.coordinator.record = self._compare
        elif event.kind is Kind.RETURNED or (event.kind is Kind.SET_ASIDE and self._is_finite(worker)):
            self.coordinator.died(worker)
        else:
            self.coordinator.push(worker, self._computed.pop(worker), self.slots[worker])

    def _is_finite(self, worker: int) -> bool:
        return math.isfinite(self._computed[worker].gradient_norm)

    def _compare(self, event: Event) -> None:
        recorded = self._expected.popleft() if self._expected else None
        if event != recorded:
            raise RunFailure(f"the replay came to {event} where {recorded} was recorded.")
