"""Simulates a mode with so many workers, without gradients, and says what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.profile import ClusterProfile, profile_for
from nmt_async.cluster.simulated import BYTES, SimulatedCluster
from nmt_async.cluster.simulated_machines import SimulatedMachines, machine_of
from nmt_async.cluster.task import Computed, Handled, Task
from nmt_async.planning.modes import Mode
from nmt_async.quantity import Quantity
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import Way
from nmt_async.sync.compression.message import Room
from nmt_async.sync.journal import Event
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.push import Update
from nmt_async.sync.rules import Rule
from nmt_async.sync.schedule import Schedule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchPlan


class NominalGradients:
    """One number each, that stand for gradients of a real size.

    Args:
        plan: of the batches; its lengths say how many tokens a task has.
        sent: numbers that a pull and a push would bring over the link.
    """

    size = 1
    operations_per_token = 0.0

    def __init__(self, plan: BatchPlan, sent: int) -> None:
        self.sent = sent
        self._source, self._target = (_by_index(plan, np.asarray(lengths))
                                      for lengths in (plan.source_lengths, plan.target_lengths))  # fmt: skip

    def compute(self, parameters: Tensor, gradient: Room, task: Task) -> Computed:  # noqa: ARG002
        """As in `nmt_async.cluster.simulated.Gradients`; what stands in ``gradient`` stays."""
        target = sum(int(self._target[part].sum()) for part in task.parts)
        source = sum(int(self._source[part].sum()) for part in task.parts)
        return Computed(0.0, target, source, 0.0, len(task.parts), bytes=BYTES * self.sent)


def _by_index(plan: BatchPlan, lengths: np.ndarray) -> np.ndarray:
    """Lengths at the indexes by which the plan's batches name their sentences."""
    if plan.indexes is None:
        return lengths
    at = np.zeros(int(plan.indexes.max()) + 1, dtype=lengths.dtype)
    at[plan.indexes] = lengths
    return at


def even_plan(tokens: int, batches: int, parts: int = 1) -> BatchPlan:
    """A plan whose batches are all of ``parts`` times ``tokens`` target tokens; an epoch holds so many of them."""
    lengths = np.full(batches * parts, tokens, dtype=np.int64)
    return BatchPlan(lengths, lengths, tokens, seed=1, parts=parts)


LEAST_UPDATES, LEAST_PUSHES = 16, 1000
"""That are simulated at least after the beginning: few of them would show the jitter of single batches."""

LEAST_ROUNDS = 4
"""Pushes of each worker that are simulated at least."""

FIRST_EXCHANGES, LEAST_EXCHANGES = 6, 6
"""Of machines: those that do not count, in which each finds out how many batches it wants, and those that do."""

BEGINNING = 2
"""Pushes of each worker that do not count: all workers begin at once, which no later moment looks like."""


@dataclass(frozen=True)
class Prediction:
    """What a mode costs with so many workers.

    Attributes:
        mode: its name.
        workers: how many.
        tokens_per_second: target tokens.
        speedup: its throughput over that of the profile's first worker alone in the same mode.
        waiting_share: of the workers' time, the mean over workers.
        staleness_mean, staleness_max: of pushes, in updates.
        effective_batch: target tokens in an update, the mean.
        updates_per_second: of virtual time.
        pushes: that these figures are made of.
        machines: among which the workers are shared out.
        between: how these exchange; empty for one.
        link_bytes: that cross each machine's link in each direction for an update.
    """

    mode: str
    workers: int
    tokens_per_second: float
    speedup: float
    waiting_share: float
    staleness_mean: float
    staleness_max: int
    effective_batch: float
    updates_per_second: float
    pushes: int
    machines: int = 1
    between: str = ""
    link_bytes: float = 0.0


@dataclass
class Tally:
    """What has been counted of a simulation since its beginning was over."""

    begin: float
    updates: int = 0
    pushes: int = 0
    tokens: int = 0
    staleness: int = 0
    stalest: int = 0

    def add(self, update: Update) -> None:
        """One more update."""
        self.updates += 1
        self.pushes += len(update.pushes)
        self.tokens += update.tokens
        self.staleness += sum(update.staleness)
        self.stalest = max(self.stalest, *update.staleness)


def nominal_cluster(
    rule: Rule,
    profile: ClusterProfile,
    plan: BatchPlan,
    sent: int,
    seed: int = 1,
    observe: Callable[[Handled], None] | None = None,
) -> SimulatedCluster:
    """A simulated cluster whose gradients take time and nothing else.

    Args:
        rule: when pushes become an update.
        plan: of its batches.
        sent: numbers that a pull and a push bring over the link.
        seed: of everything random in the profile.
        observe: takes the times of each push.
    """
    still = Schedule(0.0, Quantity(0, "updates"), "none")
    server = ParameterServer(torch.zeros(1, 1), rule, still, OptimizerSettings(clip_norm=0.0))
    coordinator = Coordinator(server, plan, _unrecorded, _unrecorded)
    return SimulatedCluster(coordinator, NominalGradients(plan, sent), profile, seed, observe)


def nominal_machines(
    rule: Rule,
    way: Way,
    machines: int,
    profile: ClusterProfile,
    plan: BatchPlan,
    sent: int,
    seed: int = 1,
    last_epoch: int | None = None,
    outer: OuterSettings | None = None,
) -> SimulatedMachines:
    """Simulated machines whose gradients take time and nothing else.

    Args:
        rule: of each machine.
        way: how they exchange.
        machines: among which the profile's workers are shared out.
        profile, plan, sent, seed: as for `nominal_cluster`.
        last_epoch: the stream ends after it; None: it never ends.
        outer: the outer step, where machines make updates of their own; None: as it is by default.
    """
    still = Schedule(0.0, Quantity(0, "updates"), "none")
    gradients, clusters = NominalGradients(plan, sent), []
    parts = profile.machines(machines)
    workers = [len(part.workers) for part in parts]
    for rank, part in enumerate(parts):
        server = ParameterServer(torch.zeros(1, 1), rule, still, OptimizerSettings(clip_norm=0.0))
        settings = OuterSettings() if outer is None else outer
        step = OuterStep(settings, server.parameters) if way.local else None
        machine = MachineCoordinator(server, plan, _unrecorded, _unrecorded, last_epoch, way, workers, rank, step)
        machine.begin_shared(0, 1)
        clusters.append(SimulatedCluster(machine, gradients, part, seed + rank))
    wanted = [machine_of(cluster).round_size for cluster in clusters]
    for cluster in clusters:
        machine_of(cluster).begin(wanted)
    return SimulatedMachines(clusters, profile.between, sent)


def _unrecorded(what: Event | str) -> None:
    """A simulation of time keeps no journal, and what happens to its batches is what was asked for."""


def simulated_pushes(mode: Mode, workers: int, batches: int) -> int:
    """Pushes of a simulation in which each worker computes so many batches or more."""
    own = workers * max(LEAST_ROUNDS, batches // mode.parts(workers))
    return max(own, LEAST_PUSHES, LEAST_UPDATES * mode.rule(workers).pushes)


def predict(
    mode: Mode,
    profile: ClusterProfile,
    plan: Callable[[int, int], BatchPlan],
    sent: int,
    batches: int,
    seed: int = 1,
    alone: float | None = None,
    machines: int = 1,
    way: Way | None = None,
    outer: OuterSettings | None = None,
) -> Prediction:
    """Simulates ``mode`` on all the profile's workers.

    Args:
        plan: the plan for so many pushes (the first argument) of so many parts each (the second).
        sent: numbers that a pull and a push bring over the link.
        batches: that each worker computes after the beginning; more where `LEAST_UPDATES` and `LEAST_PUSHES` need them.
        seed: of everything random in the profile.
        alone: throughput of the first worker alone, where it is known already.
        machines: among which the workers are shared out; the mode is that of each of them.
        way: how they exchange; None only where there is one.
        outer: the outer step, where machines make updates of their own; None: as it is by default.
    """
    workers = len(profile.workers)
    each = workers // machines
    wanted, beginning = simulated_pushes(mode, workers, batches), BEGINNING * workers
    room = 1 if machines == 1 else 8  # what machines are dealt ahead should not be of many epochs
    batches_of = plan(room * (wanted + beginning), mode.parts(each))
    cluster: SimulatedCluster | SimulatedMachines
    if machines > 1:
        assert way is not None
        cluster = nominal_machines(mode.rule(each), way, machines, profile, batches_of, sent, seed, outer=outer)
    else:
        cluster = nominal_cluster(mode.rule(workers), profile, batches_of, sent, seed)
    stretch = _counted(cluster, beginning, wanted)
    shares = cluster.waiting_shares()
    seconds = cluster.time - stretch.begin
    crossing = cluster.machines[0].crossing if isinstance(cluster, SimulatedMachines) else 1.0
    rate = stretch.tokens / seconds
    return Prediction(
        mode=mode.name,
        workers=workers,
        tokens_per_second=rate,
        speedup=rate / (alone if alone is not None else rate),
        waiting_share=sum(shares) / workers,
        staleness_mean=stretch.staleness / stretch.pushes,
        staleness_max=stretch.stalest,
        effective_batch=stretch.tokens / stretch.updates,
        updates_per_second=stretch.updates / seconds,
        pushes=stretch.pushes,
        machines=machines,
        between="" if way is None else way.name,
        link_bytes=profile.between.crosses(BYTES * sent * crossing, machines),
    )


def _counted(cluster: SimulatedCluster | SimulatedMachines, beginning: int, wanted: int) -> Tally:
    """Lets the beginning go by and counts what comes then."""
    begun, updates, stretch = 0, 0, None
    first, least = (0, 0) if isinstance(cluster, SimulatedCluster) else (FIRST_EXCHANGES, LEAST_EXCHANGES)
    for update in cluster.updates():
        if update is None:
            continue
        updates += 1
        if stretch is not None:
            stretch.add(update)
            if stretch.pushes >= wanted and stretch.updates >= least:
                return stretch
        else:
            begun += len(update.pushes)
            if begun >= beginning and updates >= first:
                cluster.waiting_shares()
                stretch = Tally(cluster.time)
    raise AssertionError("a stream without end has ended")


def predictions(
    modes: Sequence[Mode],
    counts: Sequence[int],
    profile: Callable[[int], ClusterProfile],
    plan: Callable[[int, int], BatchPlan],
    sent: int,
    batches: int,
    seed: int,
    step: Callable[[Prediction], None] = lambda _: None,
    machines: Sequence[int] = (1,),
    ways: Sequence[Way] = (),
    outer: OuterSettings | None = None,
) -> list[Prediction]:
    """Simulates all modes with all numbers of workers, ascending; for the other arguments see `predict`.

    Args:
        counts: of workers, on each machine.
        profile: of so many workers.
        step: takes each prediction as it is made.
        machines: how many there are, ascending.
        ways: in which several of them exchange, one after another; none where there is one.
        outer: the outer step, where machines make updates of their own.
    """
    made = []
    whole = profile(max(counts) * max(machines))
    single = replace(whole, workers=whole.workers[:1])
    for mode in modes:
        alone = predict(mode, single, plan, sent, batches, seed).tokens_per_second
        for way in [way for way in ways if way.takes(mode.rule(1).mode)] if ways else [None]:
            for workers, nodes in ((workers, nodes) for workers in counts for nodes in machines):
                all_workers = profile(workers * nodes)
                prediction = predict(mode, all_workers, plan, sent, batches, seed, alone, nodes, way, outer)
                made.append(prediction)
                step(prediction)
    return made


EVEN_BATCHES = 256
"""That each worker computes in a simulation of `even_speed`, at least."""


def uneven(profile: ClusterProfile, speed: float) -> ClusterProfile:
    """The profile with a first worker that takes 1 / ``speed`` times as long for everything it computes."""
    first = profile.workers[0]
    slow = replace(
        first,
        tokens_per_second=first.tokens_per_second * speed,
        seconds_per_batch=first.seconds_per_batch / speed,
    )
    return replace(profile, workers=(slow, *profile.workers[1:]))


@cache
def even_speed(mode: str, profile: str, workers: int, slowest: float, tokens: int, sent: int) -> float:
    """Target tokens a second of equal workers, one of which is made slower.

    Args:
        mode: its short name.
        profile: a name or a file.
        slowest: speed of the first worker, as a share of the others'.
        tokens: target tokens of each push.
        sent: numbers that a pull and a push bring over the link.

    Raises:
        ValueError: the profile's workers are not equal.
    """
    equal = profile_for(profile, workers)
    if len(set(equal.workers)) > 1:
        raise ValueError(f"the workers of {profile} are not equal")

    def plan(pushes: int, parts: int) -> BatchPlan:
        return even_plan(tokens, pushes, parts)

    return predict(Mode(mode), uneven(equal, slowest), plan, sent, EVEN_BATCHES).tokens_per_second
