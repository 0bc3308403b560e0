"""What training is measured against: loops in processes of their own.

A plain loop, alone, side by side, and under torch's DDP; a worker's gradients alone; and a simulated cluster with real
gradients, which costs what it is slower than those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from torch import Tensor, nn

from nmt_async.cluster.profile import profile_for
from nmt_async.cluster.simulated import SimulatedCluster, WorkerGradients
from nmt_async.cluster.task import Computed, Handled, Task
from nmt_async.cluster.worker import WorkerSettings, build_worker
from nmt_async.errors import RunFailure
from nmt_async.model.build import build_model
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.child import Child
from nmt_async.sync.compression.message import Room
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Place:
    """Where a loop runs.

    Attributes:
        settings: model, data and loss.
        plan: of the batches.
        rank, ranks: which of how many processes.
        meeting: a file through which they find each other, where they exchange anything.
    """

    settings: WorkerSettings
    plan: BatchPlan
    rank: int = 0
    ranks: int = 1
    meeting: str | None = None


class Loop(Protocol):
    """Something that computes batch after batch."""

    def run(self, batches: int) -> int:
        """Computes so many batches; their target tokens."""


class PlainLoop:
    """The loop that everybody writes: forward, backward, clip, step, on every ``ranks``-th batch from ``rank`` on.

    With a meeting, gradients are averaged with the other ranks by torch's DistributedDataParallel over Gloo.
    """

    def __init__(self, place: Place) -> None:
        settings = place.settings
        if place.meeting is not None:
            meeting = f"file://{place.meeting}"
            torch.distributed.init_process_group("gloo", init_method=meeting, rank=place.rank, world_size=place.ranks)
        self.data = PreparedData.open(settings.data).train
        self.plan = place.plan
        self.number, self.ranks = place.rank, place.ranks
        self.label_smoothing = settings.label_smoothing
        model = build_model(settings.configuration, settings.seed).train()
        self.model: nn.Module = nn.parallel.DistributedDataParallel(model) if place.meeting is not None else model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)

    def run(self, batches: int) -> int:
        """Trains on so many batches; their target tokens."""
        return sum(self._step() for _ in range(batches))

    def _step(self) -> int:
        epoch = self.plan.epoch(1)
        batch = self.data.batch(self.plan.sentences(BatchId(1, self.number % len(epoch))))
        self.number += self.ranks
        self.optimizer.zero_grad(set_to_none=True)
        logits, targets = self.model(batch)
        loss = smoothed_cross_entropy(logits, targets, self.label_smoothing) / len(targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return batch.target_tokens


def run_rival(place: Place, make: Callable[[Place], Loop], pipe: Connection) -> None:
    """The body of a rival's process: runs so many batches whenever it is told to, and says how long they took."""
    loop = make(place)
    pipe.send(None)
    try:
        while batches := pipe.recv():
            begin, worked = time.monotonic(), time.process_time()
            tokens = loop.run(batches)
            pipe.send((tokens, time.monotonic() - begin, time.process_time() - worked))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


@dataclass(frozen=True)
class Turn:
    """What a contender did in its turn.

    Attributes:
        rate: target tokens a second.
        cpu_rate: target tokens a second of processor time, of all its processes; None where that is not known.
        pushes: those that were observed.
        operations: floating-point operations of an update in products of matrices.
    """

    rate: float
    cpu_rate: float | None = None
    pushes: Sequence[Handled] = ()
    operations: int = 0


class Rival:
    """Processes that run loops.

    Args:
        settings, plan: of their places.
        ranks: how many processes.
        group: they meet, to exchange gradients; else they never exchange anything.
        make: the loop of a process, at its place; it is made there.

    Raises:
        RunFailure: a process ended.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        plan: BatchPlan,
        ranks: int,
        group: bool = False,
        make: Callable[[Place], Loop] = PlainLoop,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="nmt-async-bench-")
        meeting = str(Path(self._folder.name) / "meeting") if group else None
        self._processes: list[Child] = []
        for rank in range(ranks):
            arguments = (Place(settings, plan, rank, ranks, meeting), make)
            self._processes.append(Child(f"rival {rank}", run_rival, arguments, settings.threads))
        self._hear()

    def turn(self, batches: int) -> Turn:
        """``batches`` batches of each process."""
        for process in self._processes:
            process.pipe.send(batches)
        heard = self._hear()
        tokens, worked = sum(one[0] for one in heard), sum(one[2] for one in heard)
        return Turn(sum(one[0] / one[1] for one in heard), tokens / worked if worked else None)

    def _hear(self) -> list[tuple[int, float, float]]:
        try:
            return [process.pipe.recv() for process in self._processes]
        except EOFError:
            raise RunFailure("a process that was measured has ended; perhaps it ran out of memory.") from None

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.close()
        self._folder.cleanup()


PROFILE = "paper"
"""Of the simulated cluster; what it computes is the same under any."""


class CountedGradients(WorkerGradients):
    """A real worker's gradients, counted."""

    def __init__(self, place: Place) -> None:
        worker = build_worker(place.settings, torch.device("cpu"))
        super().__init__(worker, PreparedData.open(place.settings.data).train)
        self.batches = 0
        self.tokens = 0

    def compute(self, parameters: Tensor, gradient: Room, task: Task) -> Computed:
        """As in `nmt_async.cluster.simulated.Gradients`."""
        computed = super().compute(parameters, gradient, task)
        self.batches += 1
        self.tokens += computed.tokens
        return computed


class GradientLoop:
    """Computes the gradients of the plan's batches, one after another on the initial parameters, and nothing else."""

    def __init__(self, place: Place) -> None:
        self.plan = place.plan
        self.gradients = CountedGradients(place)
        self.parameters = initial_parameters(place)
        self.slot = torch.zeros_like(self.parameters)
        self.next = BatchId(1, 0)

    def run(self, batches: int) -> int:
        """Computes so many batches; their target tokens."""
        before = self.gradients.tokens
        for _ in range(batches):
            batch, plan = self.next, self.plan
            self.gradients.compute(self.parameters, self.slot, Task(batch, plan.parts(batch), buffer=0))
            self.next = plan.following(batch)
        return self.gradients.tokens - before


class SimulatedLoop:
    """A simulated cluster that trains on the same batches.

    Args:
        options: how gradients become updates, and the number of virtual workers.
    """

    def __init__(self, options: TrainOptions, place: Place) -> None:
        workers = len(options.device_list())
        model = build_model(place.settings.configuration, place.settings.seed)
        layout = FlatLayout(model)
        coordinator = build_coordinator(
            options,
            place.plan,
            layout,
            layout.gather(model)[None],
            record=lambda _event: None,
            warn=lambda _text: None,
        )
        self.gradients = CountedGradients(place)
        cluster = SimulatedCluster(coordinator, self.gradients, profile_for(PROFILE, workers), place.settings.seed)
        self.updates = cluster.updates()

    def run(self, batches: int) -> int:
        """Goes on until so many batches or a few more are computed; their target tokens."""
        before, wanted = self.gradients.tokens, self.gradients.batches + batches
        while self.gradients.batches < wanted:
            next(self.updates)
        return self.gradients.tokens - before


def initial_parameters(place: Place) -> Tensor:
    """A model's as training begins with them, (size,)."""
    model = build_model(place.settings.configuration, place.settings.seed)
    return FlatLayout(model).gather(model)
