"""Whole runs in virtual time that are killed again and again: workers by their profile, the run itself at any event.

The journal is a real file that a kill leaves torn; checkpoints are what a run stores, seen through JSON. The gradient
of a batch is `WEIGHT` at the batch's own place and 1 at the next, and updates add up, so that the parameters, with what
the workers' pushes left behind, say how often each batch was counted, independently of what the journal says. All are
whole numbers, so that their sums are exact.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator, TooManySetAside
from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.cluster.task import Computed, Task
from nmt_async.planning.modes import Mode
from nmt_async.planning.simulation import even_plan
from nmt_async.quantity import Quantity
from nmt_async.sync.compression.dropping import largest
from nmt_async.sync.compression.error_feedback import Compressed, compress
from nmt_async.sync.compression.message import Room, Slot, form_of
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.sync.ledger import Ledger, ledger_of
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.schedule import Schedule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.training.journal_file import JournalFile, read_journal

MODES = (
    "sync", "sync:2", "async", "hybrid:3", "hybrid:W", "local:2", "async+oldest:1", "hybrid:2+oldest:0+restart",
    "async+oldest:2+restart", "hybrid:2+staleness:1", "hybrid:W+staleness:0", "async+staleness:2", "sync:2+balance",
    "sync:2+fastest:W", "sync:3+fastest:W+restart", "sync:2+fastest:W+balance", "adaptive:W",
    "adaptive:W+oldest:0", "adaptive:W+oldest:1+restart",
)  # fmt: skip
WORKERS = (1, 2, 3, 4, 8)
EPOCHS, BATCHES = 2, 150
WEIGHT = 1001
"""Bfloat16 does not hold it: 1 is left behind."""
PUSHES = (WHOLE, PushSettings("bfloat16"), PushSettings(drop=0.99), PushSettings("bfloat16", 0.997))


class Killed(Exception):
    """The process is gone: nothing of what it had in memory is written any more."""


class Adding(FlatOptimizer):
    """Adds the sum of an update's gradients to the parameters."""

    def step(self, parameters: Tensor, total: Tensor, *_: object) -> float:
        """As `FlatOptimizer.step`."""
        parameters.add_(total)
        return 1.0


@dataclass(frozen=True)
class Marks:
    """Gradients of one at the place of the batch.

    Attributes:
        spoiled: batches whose gradients are never finite.
    """

    plan: BatchPlan
    spoiled: frozenset[tuple[int, int]]
    push: PushSettings = WHOLE
    sent: int = 0
    size: int = EPOCHS * BATCHES
    operations_per_token: float = 0.0

    def compute(self, parameters: Tensor, gradient: Room, task: Task) -> Computed:  # noqa: ARG002
        """As `nmt_async.cluster.simulated.Gradients`."""
        whole = gradient.after if isinstance(gradient, Slot) else gradient
        whole.copy_(marks_of(task.batch))
        made = compress(whole, gradient, self.pick) if isinstance(gradient, Slot) else Compressed(1.0, 0)
        norm = math.inf if task.batch in self.spoiled else made.norm
        falling = 4.0 / (1 + place(task.batch))
        return Computed(falling, 1, 1, norm, len(task.parts), entries=made.entries)

    def pick(self, vector: Tensor) -> Tensor:
        """Which of its numbers cross."""
        most = form_of(self.push, self.size).columns
        return largest(vector, self.push.drop, most, torch.Generator().manual_seed(1))


def place(batch: tuple[int, int]) -> int:
    """Where a batch stands in the parameters."""
    epoch, number = batch
    return (epoch - 1) * BATCHES + number


def marks_of(batch: tuple[int, int]) -> Tensor:
    """The gradient of a batch."""
    gradient = torch.zeros(EPOCHS * BATCHES)
    gradient[place(batch)] = WEIGHT
    gradient[(place(batch) + 1) % len(gradient)] += 1
    return gradient


@dataclass
class VirtualRun:
    """A run to the end of `EPOCHS` through everything that befalls it.

    Args:
        folder: of its journal.
        mode: its short name.
        random: every moment is drawn from it.
        push: how a push is made of a gradient.

    Attributes:
        faults: that were injected so far, by kind.
    """

    folder: Path
    mode: str
    workers: int
    random: Random
    push: PushSettings = WHOLE
    faults: Counter[str] = field(default_factory=Counter)
    _stored: list[str] = field(default_factory=list)
    _fuse: float = math.inf

    def __post_init__(self) -> None:
        self.plan = even_plan(1, BATCHES, Mode(self.mode).parts(self.workers))
        spoiled = (
            {(self.random.randint(1, EPOCHS), self.random.randrange(BATCHES))} if self.random.random() < 0.3 else ()
        )
        self.gradients = Marks(self.plan, frozenset(spoiled), self.push)
        self.seed = self.random.randrange(10**6)
        self.profile = ClusterProfile("mortal", tuple(self._worker() for _ in range(self.workers)), 0.01, 0.02)

    def _worker(self) -> WorkerProfile:
        return WorkerProfile(
            tokens_per_second=self.random.uniform(0.5, 2.0), jitter=0.3, pause_every=50.0, pause_seconds=20.0,
            failure_every=self.random.choice((10.0, 30.0, 100.0)), restart_seconds=self.random.uniform(0.0, 5.0),
            latency=self.random.choice((0.0, 0.1)),
        )  # fmt: skip

    @property
    def path(self) -> Path:
        """Of the journal."""
        return self.folder / "journal"

    def finish(self) -> list[str]:
        """Runs, is killed and goes on until the stream has ended; what is wrong then."""
        ended = False
        while not ended:
            self._fuse = self.random.expovariate(1 / 400)
            journal = JournalFile(self.path, self.workers, 1)
            try:
                ended = self._sit(journal)
            except Killed:
                self._tear()
        try:
            ledger = ledger_of(effective(read_journal(self.path)[1]), lambda _: BATCHES)
        except ValueError as error:
            return [*self._miscounted(set()), str(error)]
        return self._miscounted(set(ledger.set_aside)) + self._unfinished(ledger)

    def _miscounted(self, aside: set[BatchId]) -> list[str]:
        """Batches that are not counted once, those set aside not at all."""
        batches = [BatchId(epoch, number) for epoch in range(1, EPOCHS + 1) for number in range(BATCHES)]
        gradients = {batch: marks_of(batch) for batch in batches if batch not in aside}
        beyond = (self.counted - sum(gradients.values())).tolist()
        wrong = [f"lost: {batch}" for batch in batches if beyond[place(batch)] < -WEIGHT / 2]
        wrong += [f"counted twice: {batch}" for batch in batches if beyond[place(batch)] > WEIGHT / 2]
        return wrong or [f"beside the batches, {sum(map(abs, beyond)):g} are left over"] * any(beyond)

    def _unfinished(self, ledger: Ledger) -> list[str]:
        """What the journal leaves open, though the stream has ended."""
        left = [*ledger.waiting, *(begun.batch for begun in ledger.out.values()), *ledger.accumulated]
        wrong = [f"left over: {batch}" for batch in left]
        if (ledger.position, ledger.applied) != ((EPOCHS + 1, 0), EPOCHS * BATCHES - len(ledger.set_aside)):
            wrong.append(f"the journal ends at {ledger.position} with {ledger.applied} batches applied")
        return wrong

    def _sit(self, journal: JournalFile) -> bool:
        """One start of the run; whether it came to the end."""
        record = self._recorder(journal)
        coordinator = self._coordinator(record)
        form = form_of(self.push, self.gradients.size)
        cluster = SimulatedCluster(coordinator, self.gradients, self.profile, self.seed, form=form)
        if not self._take_up(coordinator, cluster) and self.path.stat().st_size:
            coordinator.begin_anew(self.workers)  # killed before its first checkpoint
        try:
            for _ in cluster.updates():
                journal.flush()
                if self.random.random() < 0.1:
                    self._store(coordinator, cluster)
        except TooManySetAside:
            cluster.stop()
            self._store(coordinator, cluster)
        residuals = coordinator.server.residuals
        left = [] if residuals is None else residuals.state().values()
        self.counted = coordinator.server.parameters + sum(left)
        journal.close()
        return coordinator.finished

    def _coordinator(self, record: Callable[[Event], None]) -> Coordinator:
        rule = Mode(self.mode).rule(self.workers)
        parameters = torch.zeros(1, self.gradients.size)
        still = Schedule(0.0, Quantity(0, "updates"), "none")
        rows = torch.zeros(2 * self.workers, self.gradients.size) if self.push.compressed else None
        server = ParameterServer(parameters, rule, still, OptimizerSettings(), residuals=rows)
        server.optimizer = Adding(server.parameters, OptimizerSettings())
        return Coordinator(server, self.plan, record, lambda _: None, EPOCHS)

    def _recorder(self, journal: JournalFile) -> Callable[[Event], None]:
        """Records events until the run is killed at one: what was recorded last may be on the disk or not."""

        stopping = False

        def record(event: Event) -> None:
            nonlocal stopping
            self._fuse -= 1
            if self._fuse < 0:
                if self.random.random() < 0.5:
                    journal.record(event)
                if self.random.random() < 0.5:
                    journal.flush()
                self.faults["run killed"] += 1
                raise Killed
            journal.record(event)
            stopping = event.kind is Kind.STOPPED or (stopping and event.kind is Kind.RETURNED)
            self.faults["worker killed"] += event.kind is Kind.RETURNED and not stopping

        return record

    def _store(self, coordinator: Coordinator, cluster: SimulatedCluster) -> None:
        """A checkpoint, through JSON; two are kept."""
        values, tensors = coordinator.state()
        held, slots = cluster.state()
        plain = {name: tensor.tolist() for name, tensor in (tensors | slots).items()}
        self._stored = [*self._stored, json.dumps([values, held, plain])][-2:]

    def _take_up(self, coordinator: Coordinator, cluster: SimulatedCluster) -> bool:
        """Goes on from the newest checkpoint that is whole, if there is one."""
        if len(self._stored) > 1 and self.random.random() < 0.2:
            self._stored.pop()
            self.faults["newest checkpoint damaged"] += 1
        if self._stored:
            values, held, plain = json.loads(self._stored[-1])
            tensors: dict[str, Any] = {name: torch.tensor(content) for name, content in plain.items()}
            coordinator.restore(values, tensors, self.workers)
            cluster.restore(held, tensors)
        return bool(self._stored)

    def _tear(self) -> None:
        """The last record is half written. A file that was not begun stays empty: its head is never anything else."""
        if not self.path.stat().st_size:
            return
        with self.path.open("ab") as file:
            file.write(self.random.randbytes(self.random.randrange(32)))


def run_until(
    kills: int, folder: Path, random: Random, tell: Callable[[str], None] = lambda _: None
) -> tuple[Counter[str], list[str]]:
    """Runs in all modes with all numbers of workers, in turn, until so many workers and runs were killed.

    Returns:
        The faults by kind, and what went wrong.
    """
    faults: Counter[str] = Counter()
    wrong: list[str] = []
    number = 0
    while faults["worker killed"] + faults["run killed"] < kills:
        mode, workers = MODES[number % len(MODES)], WORKERS[number % len(WORKERS)]
        here = folder / f"virtual-{number}"
        here.mkdir()
        push = random.choice(PUSHES)
        run = VirtualRun(here, mode, workers, random, push)
        found = run.finish()
        wrong += [f"{mode}, {workers} workers, {push}: {problem}" for problem in found]
        faults.update(run.faults)
        number += 1
        tell(f"{mode}, {workers} workers, {push}: {dict(run.faults)}; wrong: {len(found)}")
    return faults, wrong
