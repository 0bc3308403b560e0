"""Throughput of training here: every contender's turns alternate in one run, so that a noisy machine wrongs none.

Each contender has its processes up from the beginning; a turn is so many batches of each process. Ratios are taken
within a round, against the bound: as many plain loops side by side that never exchange anything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

from nmt_async.bench.rivals import Rival
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.worker_process import WorkerSettings
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelOptions
from nmt_async.model.flat import FlatLayout
from nmt_async.options import option
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import BatchOptions, SyncOptions, TrainOptions
from nmt_async.training.parts import build_coordinator, model_configuration, shared_memory, training_plan

BOUND = "independent"
RIVALS = ("plain", "independent", "ddp", "one-worker", "sync", "async")
GROUP = "Measurement"


@dataclass(frozen=True)
class BenchOptions(SyncOptions, ModelOptions, BatchOptions):
    """What is measured, and how long."""

    against: tuple[str, ...] = option(
        ("plain", "independent", "ddp", "one-worker"),
        "Measure also: plain (one plain loop), independent (as many that exchange nothing: the bound), "
        "ddp (torch DistributedDataParallel over Gloo), one-worker, sync, async; repeat for several.",
        group=GROUP,
        choices=RIVALS,
    )
    rounds: int = option(5, "Turns of every contender.", group=GROUP)
    batches: int = option(8, "Batches of each process in a turn.", group=GROUP)
    json: bool = option(False, "Print figures as JSON.", group=GROUP, flags=("--json",))

    def __post_init__(self) -> None:
        for name in ("rounds", "batches"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: {getattr(self, name)} is too small; give 1 or more.")
        if set(self.device_list()) != {"cpu"}:
            raise UserError("--devices: bench compares workers on CPU; give cpu.")

    @property
    def turns(self) -> int:
        """All contenders' turns, the first round's, which warms up, among them."""
        return (self.rounds + 1) * (1 + len(set(self.against)))

    def train_options(self) -> TrainOptions:
        """The options of a training run like this."""
        shared = {field.name for field in fields(TrainOptions)} & {field.name for field in fields(self)}
        return TrainOptions(**{name: getattr(self, name) for name in shared})


class Contender(Protocol):
    """Something whose speed is measured."""

    def turn(self, batches: int) -> float:
        """Target tokens a second over ``batches`` batches of each of its processes."""

    def close(self) -> None:
        """Ends its processes."""


class Cluster:
    """Our own workers and server, as in training, as a contender."""

    def __init__(self, options: TrainOptions, settings: WorkerSettings, plan: BatchPlan) -> None:
        model = build_model(settings.configuration, settings.seed)
        layout = FlatLayout(model)
        devices = options.device_list()
        self.memory = shared_memory(len(devices), layout.size)
        self.memory.ring.tensor[0].copy_(layout.gather(model))
        warnings: list[str] = []
        coordinator = build_coordinator(
            options, plan, self.memory.ring.tensor, record=lambda _event: None, warn=warnings.append
        )
        self.cluster = ProcessCluster(coordinator, self.memory, settings, devices, warnings.append)

    def turn(self, batches: int) -> float:
        """Target tokens a second, summed over workers, each from the turn's begin to its last push."""
        before = self.cluster.work_done()
        begin = time.monotonic()
        wanted = batches * len(before)
        pushes = 0
        for update in self.cluster.updates():
            pushes += len(update.pushes) if update is not None else 0
            if pushes >= wanted - len(before):
                break
        for _ in self.cluster.drain():
            pass
        after = self.cluster.work_done()
        return sum(
            (tokens - earlier) / (latest - begin)
            for (earlier, _), (tokens, latest) in zip(before, after, strict=True)
            if tokens > earlier
        )

    def close(self) -> None:
        """Ends the workers."""
        self.cluster.close()
        self.memory.close()


@dataclass(frozen=True)
class Result:
    """One contender's figures.

    Attributes:
        name: as in `RIVALS`, or the measured setting.
        rates: target tokens a second, one for each round.
        ratios: to the bound, in the same round; empty if the bound was not measured.
    """

    name: str
    rates: list[float]
    ratios: list[float]

    @property
    def rate(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float | None:
        """The median ratio to the bound."""
        return statistics.median(self.ratios) if self.ratios else None


def measure(options: BenchOptions, data_folder: Path, step: Callable[[int], None]) -> list[Result]:
    """Measures the setting and what it is compared with, in alternation.

    Args:
        step: told after each turn how many are done of `BenchOptions.turns`.

    Raises:
        UserError: options that do not fit. RunFailure: a process ended.
    """
    data = PreparedData.open(data_folder)
    names = [_name(options), *dict.fromkeys(options.against)]
    rates: dict[str, list[float]] = {name: [] for name in names}
    with _contenders(options, data) as contenders:
        done = 0
        for round_number in range(options.rounds + 1):
            for name, contender in zip(names, contenders, strict=True):
                rate = contender.turn(options.batches if round_number else 2)
                done += 1
                step(done)
                if round_number:  # the first warms up
                    rates[name].append(rate)
    bound = rates.get(BOUND, [])
    return [
        Result(name, values, [rate / best for rate, best in zip(values, bound, strict=True)] if bound else [])
        for name, values in rates.items()
    ]


def _name(options: BenchOptions) -> str:
    workers = len(options.device_list())
    return f"{options.sync_mode}:{options.pushes_summed}, {workers} worker{'s' if workers > 1 else ''}"


@contextmanager
def _contenders(options: BenchOptions, data: PreparedData) -> Iterator[list[Contender]]:
    train = options.train_options()
    plan = training_plan(train, data)
    ranks = len(options.device_list())
    settings = WorkerSettings(
        data.folder.resolve(), model_configuration(train, data), options.seed, train.label_smoothing, options.threads()
    )

    def cluster(changed: TrainOptions) -> Contender:
        return Cluster(changed, settings, plan)

    makers: dict[str, Callable[[], Contender]] = {
        "plain": lambda: Rival(settings, plan, 1),
        "independent": lambda: Rival(settings, plan, ranks),
        "ddp": lambda: Rival(settings, plan, ranks, group=True),
        "one-worker": lambda: cluster(replace(train, workers=1)),
        "sync": lambda: cluster(replace(train, sync_mode="sync", accumulate=1)),
        "async": lambda: cluster(replace(train, sync_mode="async", accumulate=1)),
    }
    with ExitStack() as stack:
        contenders = []
        for make in [lambda: cluster(train), *(makers[name] for name in dict.fromkeys(options.against))]:
            contender = make()
            stack.callback(contender.close)
            contenders.append(contender)
        yield contenders
