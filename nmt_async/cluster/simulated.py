"""A simulated cluster: virtual workers in one process and one virtual clock, with real gradients of the real model.

A gradient is computed when its batch is begun, on the parameters as they are then, and delivered when the virtual
clock says that the worker has finished. So it is deterministic, and one model serves all workers. The server takes
one push after another; what a worker does not compute (transfer, queueing, the rule's barriers) it waits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nmt_async.cluster.cluster import SpentTime, everybody_waits
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.profile import ClusterProfile
from nmt_async.cluster.task import Computed, Handled, Task
from nmt_async.cluster.worker import Worker
from nmt_async.reading import as_dataclass
from nmt_async.sync.between.contribution import Joint
from nmt_async.sync.compression.message import Form, Room, Slots
from nmt_async.sync.push import Update, Verdict
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import ParallelStore

BYTES = 4
"""Of a parameter, which is pulled as it is."""


class Gradients(Protocol):
    """Where the gradients of all virtual workers come from."""

    @property
    def size(self) -> int:
        """Of a gradient."""

    @property
    def sent(self) -> int:
        """Numbers, of four bytes each, that a pull brings over the link; `size`, unless the gradients stand for others.
        What a push brings is said with it."""

    @property
    def operations_per_token(self) -> float:
        """Floating-point operations of a gradient for each target token; 0: not known."""

    def compute(self, parameters: Tensor, gradient: Room, task: Task) -> Computed:
        """Writes the task's gradient on ``parameters`` (size,) into ``gradient``."""


class WorkerGradients:
    """Those of a real worker.

    Args:
        worker: computes them, one after another.
        data: the sentence pairs of the plan.
    """

    def __init__(self, worker: Worker, data: ParallelStore) -> None:
        self.worker = worker
        self.data = data
        self.size = self.sent = worker.layout.size
        self.operations_per_token = worker.layout.operations_per_token

    def compute(self, parameters: Tensor, gradient: Room, task: Task) -> Computed:
        """As in `Gradients`."""
        return self.worker.compute(parameters, gradient, self.data.batches(task.parts), task.batch, rate=task.rate)


@dataclass
class VirtualWorker:
    """A virtual worker.

    Attributes:
        idle_since: its latest push left it, or it was ready for its first.
        computing, waiting: seconds since last asked.
        tasks: that it has been given so far.
        dealt: when it was given the latest of them.
        born, lives: processes it has had before this one, and until when this one lives.
    """

    idle_since: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0
    tasks: int = 0
    dealt: float = 0.0
    born: int = 0
    lives: float = 0.0


@dataclass(frozen=True, order=True)
class Coming:
    """What will happen to a worker at a time: its push arrives, it dies (at a task), or it is ready again."""

    time: float
    worker: int
    kind: str
    computed: Computed | None = None


class SimulatedCluster:
    """Virtual workers that share one source of gradients.

    Args:
        coordinator: decides. Its server needs a single parameter buffer, or one more than there are workers where a
            correction looks at the parameters that a push was computed on.
        gradients: computes them.
        profile: of the cluster, with its workers.
        seed: of everything random in the profile.
        observe: takes the times of each push.
        form: of a push; None: a float32 vector of the gradients' size.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        gradients: Gradients,
        profile: ClusterProfile,
        seed: int = 0,
        observe: Callable[[Handled], None] | None = None,
        form: Form | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.gradients = gradients
        self.profile = profile
        self.seed = seed
        self.observe = observe
        operations = coordinator.server.optimizer.operations
        self._update_seconds = profile.update_seconds(operations, gradients.operations_per_token)
        self.time = 0.0
        self._begin = 0.0
        workers = range(len(profile.workers))
        self.slots = Slots.of(form or Form(gradients.size), len(workers))
        self._workers = [VirtualWorker(lives=profile.workers[index].lifetime(seed, index, 0)) for index in workers]
        self._idle = set(workers)
        self._to_ask = set(workers)  # those of the idle who may be given a task since something has happened
        self._coming: list[Coming] = []
        self._spent = SpentTime()

    @property
    def seconds(self) -> float:
        """Virtual seconds since this sitting began."""
        return self.time - self._begin

    def updates(self) -> Iterator[Update | None]:
        """Every update as it is applied, in virtual time; ends with a finite stream.

        Raises:
            RunFailure: every worker waits for another, or too many batches were set aside.
        """
        due = self.coordinator.due()
        if due is not None:
            self._take_time_of_update()
            yield due
        self._to_ask = set(self._idle)
        while not self.coordinator.finished:
            self.deal()
            if self.next_time == math.inf:
                raise everybody_waits(self.coordinator.rule)
            update = self.step()
            if update is not None:
                yield update
        last = self.stop()
        if last is not None:
            yield last

    def go_on(self, time: float) -> None:
        """At a time, what workers had to wait for may have changed."""
        self.time = max(self.time, time)
        self._to_ask = set(self._idle)

    def begin_at(self, time: float) -> None:
        """This sitting begins at so many virtual seconds."""
        self.time = self._begin = time

    @property
    def next_time(self) -> float:
        """When something happens next, in virtual seconds; infinite if nothing does."""
        return max(self.time, self._coming[0].time) if self._coming else math.inf

    def step(self) -> Update | None:
        """Lets the next thing happen; the update that it completes, if any."""
        return self._happen(heapq.heappop(self._coming))

    def land(self, time: float, joint: Joint, total: Tensor, first: MachineCoordinator | None = None) -> Update | None:
        """An exchange with other machines has come at a time; see `MachineCoordinator.land`."""
        assert isinstance(self.coordinator, MachineCoordinator)
        self.time = max(self.time, time)
        update = self.coordinator.land(joint, total, first)
        if update is not None and self.coordinator.outer is None:
            self._take_time_of_update()
        self.restart()
        self._to_ask = set(self._idle)
        return update

    def _happen(self, coming: Coming) -> Update | None:
        """Lets the next thing happen when the server is free for it; the update that it completes, if any."""
        index, worker = coming.worker, self._workers[coming.worker]
        self.time = max(self.time, coming.time)
        if coming.kind == "death":
            return self._die(index, coming.time)
        self._idle.add(index)
        self._to_ask.add(index)
        if coming.computed is None:
            worker.idle_since = coming.time
            return None
        heard, version = self.time, self.coordinator.server.version
        answer = self.coordinator.push(index, coming.computed, self.slots.message(index, coming.computed.entries))
        self.time += self.profile.seconds_per_push
        updated = self.coordinator.server.version > version  # also by an update of this machine's own
        if updated:
            self._take_time_of_update()
        self._ask_again(update=updated, returned=answer.verdict is not Verdict.ACCEPTED)
        if self.observe is not None:
            updating = self._update_seconds if updated else 0.0
            self.observe(Handled(index, coming.computed, worker.dealt, heard, self.time, updated, updating))
        return answer.update

    def _ask_again(self, update: bool, returned: bool) -> None:
        """After a push, or a death: all who are idle may be given a task, if what they wait for may have changed."""
        if update or returned or not self.coordinator.rule.waits_for_update:
            self._to_ask = set(self._idle)

    def _die(self, index: int, when: float) -> Update | None:
        """A worker's process ends; its batch is another's now, and its replacement will be ready later."""
        worker, profile = self._workers[index], self.profile.workers[index]
        version = self.coordinator.server.version
        update = self.coordinator.died(index)
        updated = self.coordinator.server.version > version
        if updated:
            self._take_time_of_update()
        ready = when + profile.restart_seconds
        worker.born += 1
        worker.lives = ready + profile.lifetime(self.seed, index, worker.born)
        heapq.heappush(self._coming, Coming(ready, index, "ready"))
        self._ask_again(update=updated, returned=True)
        return update

    def _take_time_of_update(self) -> None:
        """An update was made; workers leave the batches that it made too old."""
        self.time += self._update_seconds
        self.restart()

    def restart(self) -> None:
        """Workers whose pushes an update made too old leave their batches when word of it reaches them."""
        restarted = set(self.coordinator.take_restarted())
        if not restarted:
            return
        for coming in self._coming:
            if coming.worker in restarted:
                self._leave_batch(coming)
        self._coming = [coming for coming in self._coming if coming.worker not in restarted]
        heapq.heapify(self._coming)
        self._idle |= restarted

    def _leave_batch(self, coming: Coming) -> None:
        """A worker stops computing; one whose push is on its way, or that has not begun, stops nothing."""
        worker, profile = self._workers[coming.worker], self.profile.workers[coming.worker]
        if coming.computed is None:  # it would have died at the batch: its time there was not counted
            worker.idle_since = self.time
            return
        sent = coming.time - profile.transfer(coming.computed.bytes)
        begun = sent - coming.computed.seconds
        left = min(max(self.time + profile.latency, begun), sent)
        worker.computing -= sent - left
        worker.idle_since = left

    def deal(self) -> None:
        """Gives the idle workers tasks, those who may have one."""
        for index in sorted(self._to_ask):
            task = self.coordinator.next_task(index)
            self.restart()  # a machine among several may have made an update of its own
            if task is not None:
                self._idle.discard(index)
                self._begin_task(index, task)
        self._to_ask = set()

    def _begin_task(self, index: int, task: Task) -> None:
        server, worker, profile = self.coordinator.server, self._workers[index], self.profile.workers[index]
        room = self.slots.room(index, server.residual_rows, task.residual)
        computed = self.gradients.compute(server.offered, room, task)
        server.computed(index)
        computing = profile.computing(computed.tokens, self.seed, index, worker.tasks)
        worker.tasks += 1
        worker.dealt = self.time
        begin = self.time + profile.transfer(BYTES * self.gradients.sent)
        sent = begin + computing
        if sent > worker.lives:
            heapq.heappush(self._coming, Coming(max(worker.lives, self.time), index, "death"))
            return
        waited = begin - worker.idle_since
        worker.waiting += waited
        worker.computing += computing
        worker.idle_since = sent
        computed = replace(computed, seconds=computing, waited=waited)
        heapq.heappush(self._coming, Coming(sent + profile.transfer(computed.bytes), index, "push", computed))

    def waiting_shares(self) -> list[float]:
        """Of each worker, the share of its virtual time since the last call that it waited for a task."""
        return self._spent.take_waiting_shares(self._workers)

    def take_seconds(self) -> tuple[float, float]:
        """Virtual seconds that all workers together have computed and waited since the last call."""
        return self._spent.take_seconds(self._workers)

    def reading_seconds(self) -> float:
        """None: in virtual time, batches are at hand."""
        return 0.0

    def update_seconds(self) -> float:
        """Virtual seconds that the server needs for an update."""
        return self._update_seconds

    def pause(self) -> None:
        """Nothing to end: `state` holds everything that is under way."""

    def stop(self) -> Update | None:
        """Ends the run; see `Coordinator.stop`."""
        for coming in self._coming:
            self._workers[coming.worker].idle_since = self.time
            self._idle.add(coming.worker)
        self._coming = []
        return self.coordinator.stop()

    def close(self) -> None:
        """Nothing to end: there are no processes."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the virtual workers hold, for a checkpoint: the rest is the coordinator's."""
        out = self.coordinator.ledger.out
        held = {worker: [*begun.batch, begun.version] for worker, begun in out.items()}
        coming = [
            {**vars(entry), "computed": entry.computed and asdict(entry.computed), "held": held.get(entry.worker)}
            for entry in self._coming
        ]
        values = {"time": self.time, "coming": coming, "seats": [asdict(worker) for worker in self._workers]}
        residuals = self.coordinator.server.residuals
        left = {} if residuals is None else residuals.under_way(held)
        return values, {**self.slots.state(), **self._pulled(), **left}

    def _pulled(self) -> dict[str, Tensor]:
        """The parameters that gradients under way were computed on, a row a worker, if a correction looks at them."""
        server = self.coordinator.server
        if not server.keeps_pulls:
            return {}
        rows = (server.pulled(worker) for worker in range(len(self._workers)))
        return {"pulled": torch.stack([torch.zeros_like(server.parameters) if row is None else row for row in rows])}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken, after the coordinator has.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: it is not what `state` gives.
        """
        self.time = self._begin = float(values["time"])
        self.slots.restore(tensors)
        self._workers = [as_dataclass(VirtualWorker, worker) for worker in values["seats"]]
        if len(self._workers) != len(self.slots):
            raise ValueError(f"there are {len(self._workers)} workers in it and not {len(self.slots)}")
        self._idle = set(range(len(self._workers)))
        self._coming = []
        for entry in values["coming"]:
            coming = as_dataclass(Coming, _coming_of(entry))
            if not 0 <= coming.worker < len(self._workers):
                raise ValueError(f"there is no worker {coming.worker}")
            heapq.heappush(self._coming, coming)
            self._idle.discard(coming.worker)
            if entry["held"]:
                epoch, number, version = entry["held"]
                pulled = tensors["pulled"][coming.worker] if "pulled" in tensors else None
                self.coordinator.readmit(coming.worker, BatchId(epoch, number), version, pulled)
                if self.coordinator.server.residuals is not None:
                    self.coordinator.server.residuals.readmit(coming.worker, tensors)


def _coming_of(entry: dict[str, Any]) -> dict[str, Any]:
    """A stored `Coming`; version 0.1 called the pieces of a push its parts."""
    values = {name: value for name, value in entry.items() if name != "held"}
    if values.get("computed") and "parts" in values["computed"]:
        values["computed"] = {"pieces" if name == "parts" else name: it for name, it in values["computed"].items()}
    return values
