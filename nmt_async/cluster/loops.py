"""Loops in processes of their own, side by side, whose speed is measured; and that of a worker's gradients alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from torch import Tensor

from nmt_async.cluster.simulated import WorkerGradients
from nmt_async.cluster.task import Computed, Handled, Task
from nmt_async.cluster.worker import WorkerSettings, build_worker
from nmt_async.errors import RunFailure
from nmt_async.free_memory import own_peak
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.child import Child
from nmt_async.sync.compression.message import Room
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.text.prepared import PreparedData


@dataclass(frozen=True)
class Place:
    """Where a loop runs.

    Attributes:
        settings: model, data and loss.
        plan: of the batches.
        rank, ranks: which of how many processes.
        device: where it computes.
        meeting: a file through which they find each other, where they exchange anything.
    """

    settings: WorkerSettings
    plan: BatchPlan
    rank: int = 0
    ranks: int = 1
    device: str = "cpu"
    meeting: str | None = None


class Loop(Protocol):
    """Something that computes batch after batch."""

    def run(self, batches: int) -> int:
        """Computes so many batches; their target tokens."""


def run_loop(place: Place, make: Callable[[Place], Loop], pipe: Connection) -> None:
    """The body of a loop's process: runs so many batches whenever it is told to, and says what they took."""
    loop = make(place)
    pipe.send(None)
    try:
        while batches := pipe.recv():
            begin, worked = time.monotonic(), time.process_time()
            tokens = loop.run(batches)
            pipe.send(Spent(tokens, time.monotonic() - begin, time.process_time() - worked, own_peak()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


@dataclass(frozen=True)
class Spent:
    """What one process did in its turn.

    Attributes:
        tokens: target tokens of its batches.
        seconds, processor_seconds: that they took.
        memory: bytes that it had at most since it began.
    """

    tokens: int
    seconds: float
    processor_seconds: float
    memory: int


@dataclass(frozen=True)
class Turn:
    """What was done in a turn.

    Attributes:
        rate: target tokens a second.
        cpu_rate: target tokens a second of processor time, of all its processes; None where that is not known.
        pushes: those that were observed.
        operations: floating-point operations of an update in products of matrices.
        tokens: target tokens of all processes; 0 where that is not known.
        memory: bytes of its largest process; 0 where that is not known.
    """

    rate: float
    cpu_rate: float | None = None
    pushes: Sequence[Handled] = ()
    operations: int = 0
    tokens: int = 0
    memory: int = 0


class LoopProcesses:
    """Processes that run loops.

    Args:
        settings, plan: of their places.
        devices: of each process.
        make: the loop of a process, at its place; it is made there.
        group: they meet, to exchange gradients; else they never exchange anything.

    Raises:
        RunFailure: a process ended.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        plan: BatchPlan,
        devices: Sequence[str],
        make: Callable[[Place], Loop],
        group: bool = False,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="nmt-async-bench-")
        meeting = str(Path(self._folder.name) / "meeting") if group else None
        self._processes: list[Child] = []
        try:
            for rank, device in enumerate(devices):
                arguments = (Place(settings, plan, rank, len(devices), device, meeting), make)
                self._processes.append(Child(f"loop {rank}", run_loop, arguments, settings.threads))
            self._hear()
        except BaseException:
            self.close()
            raise

    def turn(self, batches: int) -> Turn:
        """``batches`` batches of each process."""
        for process in self._processes:
            process.pipe.send(batches)
        heard = self._hear()
        tokens, worked = sum(one.tokens for one in heard), sum(one.processor_seconds for one in heard)
        rate = sum(one.tokens / one.seconds for one in heard)
        memory = max(one.memory for one in heard)
        return Turn(rate, tokens / worked if worked else None, tokens=tokens, memory=memory)

    def _hear(self) -> list[Spent]:
        try:
            return [process.pipe.recv() for process in self._processes]
        except EOFError:
            raise RunFailure("a process that was measured has ended; perhaps it ran out of memory.") from None

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.close()
        self._folder.cleanup()


class CountedGradients(WorkerGradients):
    """A real worker's gradients, counted."""

    def __init__(self, place: Place) -> None:
        worker = build_worker(place.settings, torch.device(place.device))
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


def initial_parameters(place: Place) -> Tensor:
    """A model's as training begins with them, (size,)."""
    model = build_model(place.settings.configuration, place.settings.seed)
    return FlatLayout(model).gather(model)
