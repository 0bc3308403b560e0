"""A simulated cluster: virtual workers in one process and one virtual clock, with real gradients of the real model.

A gradient is computed when its batch is begun, on the parameters as they are then, and delivered when the virtual
clock says that the worker has finished. So it is deterministic, and one model serves all workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.task import Computed, Task
from nmt_async.cluster.waiting import take_waiting_shares
from nmt_async.cluster.worker import Worker
from nmt_async.sync.push import Update
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import ParallelStore

Duration = Callable[[int, Task, Computed], float]
"""Virtual seconds that a worker needs for a task."""


def even(_worker: int, _task: Task, computed: Computed) -> float:
    """Workers of one speed: a virtual second for every thousand target tokens."""
    return computed.tokens / 1000


@dataclass
class Seat:
    """A virtual worker: since when it has had no task, and how long it has computed and waited since last asked."""

    idle_since: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0


class SimulatedCluster:
    """Virtual workers that share one real one.

    Args:
        coordinator: decides.
        worker: computes the gradients.
        data: the sentence pairs of the coordinator's plan.
        workers: how many virtual workers there are.
        duration: how long each task takes.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        worker: Worker,
        data: ParallelStore,
        workers: int,
        duration: Duration = even,
    ) -> None:
        self.coordinator = coordinator
        self.worker = worker
        self.data = data
        self.duration = duration
        self.time = 0.0
        self.slots = torch.zeros(workers, worker.layout.size)
        self._seats = [Seat() for _ in range(workers)]
        self._underway: list[tuple[float, int, Computed]] = []

    def updates(self) -> Iterator[Update | None]:
        """Every update as it is applied, in virtual time; ends with a finite stream."""
        while not self.coordinator.finished:
            self._deal()
            finish, index, computed = heapq.heappop(self._underway)
            self.time = finish
            self._seats[index].idle_since = finish
            update = self.coordinator.push(index, computed, self.slots[index])
            if update is not None:
                yield update
        last = self.stop()
        if last is not None:
            yield last

    def _deal(self) -> None:
        for index, seat in enumerate(self._seats):
            task = self.coordinator.next_task(index)
            if task is None:
                continue
            computed = self._compute(index, task)
            seconds = self.duration(index, task, computed)
            seat.waiting += self.time - seat.idle_since
            seat.computing += seconds
            heapq.heappush(self._underway, (self.time + seconds, index, computed))

    def _compute(self, index: int, task: Task) -> Computed:
        batch = self.data.batch(task.sentences)
        return self.worker.compute(self.coordinator.server.parameters, self.slots[index], batch, task.batch)

    def waiting_shares(self) -> list[float]:
        """Of each worker, the share of its virtual time since the last call that it waited for a task."""
        return take_waiting_shares(self._seats)

    def stop(self) -> Update | None:
        """Ends the run; see `Coordinator.stop`."""
        for _, index, _ in self._underway:
            self._seats[index].idle_since = self.time
        self._underway = []
        return self.coordinator.stop()

    def close(self) -> None:
        """Nothing to end: there are no processes."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the virtual workers hold, for a checkpoint: the rest is the coordinator's."""
        held = self.coordinator.held()
        underway = [
            {"finish": finish, "worker": index, "computed": asdict(computed), "held": held[index]}
            for finish, index, computed in self._underway
        ]
        values = {"time": self.time, "underway": underway, "seats": [asdict(seat) for seat in self._seats]}
        return values, {"slots": self.slots}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken, after the coordinator has."""
        self.time = values["time"]
        self.slots.copy_(tensors["slots"])
        self._seats = [Seat(**seat) for seat in values["seats"]]
        self._underway = []
        for entry in values["underway"]:
            epoch, number, version = entry["held"]
            self.coordinator.readmit(entry["worker"], BatchId(epoch, number), version)
            heapq.heappush(self._underway, (entry["finish"], entry["worker"], Computed(**entry["computed"])))
