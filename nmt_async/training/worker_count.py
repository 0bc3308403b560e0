"""``--workers auto``: how many workers compute most on this machine, and with how many threads each.

Each choice is tried: so many processes compute gradients of the run's own batches side by side for some seconds. In
hybrid and asynchronous modes they make within a few percent of what such processes make together that exchange nothing,
so the server is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from nmt_async.cluster.loops import GradientLoop, LoopProcesses
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.errors import RunFailure, UserError
from nmt_async.formatting import about
from nmt_async.free_memory import available_memory
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.cluster_options import MEASURED, available_cores
from nmt_async.training.options import FITTED, TrainOptions
from nmt_async.training.parts import checked_configuration, training_plan

SECONDS = 4.0
"""That a choice computes for, after a batch that warms up; two batches at least."""

WORTH = 1.02
"""So many times as much must more workers compute than fewer: each takes memory, and makes gradients staler."""

MEMORY_SHARE = 0.8
"""Of the memory that there is, which workers may take together; the server and validation need some, too."""

GIVES_UP = 2
"""Choices in a row that are slower than the best; those after them would be slower still."""

SENTENCES = 100_000
"""Of the training data, from which batches are made."""

Choice = tuple[int, int]
"""Workers, and threads of each."""


@dataclass(frozen=True)
class Tried:
    """What was measured of a choice.

    Attributes:
        rate: target tokens a second, of all workers.
        memory: bytes of the largest worker.
    """

    workers: int
    threads: int
    rate: float
    memory: int

    def named(self) -> str:
        """``2 workers of 1 thread``."""
        each = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.workers} worker{'' if self.workers == 1 else 's'} of {each}"


Options = TypeVar("Options", bound=TrainOptions)


def with_measured_workers(options: Options, data: PreparedData, say: Callable[[str], None]) -> Options:
    """The options with as many workers and threads as compute most, where they ask for that; else as they are.

    Args:
        say: takes a sentence about what was found.

    Raises:
        UserError: there is nothing to measure beside the other options. RunFailure: a process that was measured ended.
    """
    if options.workers is not MEASURED:
        return options
    if options.batch_memory is FITTED:
        raise UserError("--workers auto and --batch-memory auto depend on each other; give one of them a number.")
    if options.cpu_threads is not None:
        raise UserError("--workers auto finds the threads of each worker, too; leave out --cpu-threads.")
    plan, configuration = sampled(training_plan(options, data), options.seed), checked_configuration(options, data)
    devices = list(dict.fromkeys(options.device_list()))

    def measure(choice: Choice) -> Tried:
        workers, threads = choice
        settings = WorkerSettings(
            data.folder.resolve(), configuration, options.seed, options.label_smoothing, threads,
            kernels=options.computed_with(), precision=options.precision,
        )  # fmt: skip
        return computed(settings, plan, [devices[index % len(devices)] for index in range(workers)])

    tried = measured(choices(available_cores(), devices), measure, available_memory())
    chosen = best(tried)
    say(f"--workers auto: {said(tried, chosen)}.")
    return replace(options, workers=chosen.workers, cpu_threads=chosen.threads)


def choices(cores: int, devices: list[str]) -> list[Choice]:
    """What is tried, most workers first: on CPUs 1, 2, 4 … threads for each worker, as many workers as there is room
    for; on GPUs 4, 2 and 1 workers for each."""
    if devices != ["cpu"]:
        counts = [each * len(devices) for each in (4, 2, 1)]
        return [(workers, max(1, cores // workers)) for workers in counts]
    found: dict[int, int] = {}
    threads = 1
    while threads <= cores:
        found[cores // threads] = threads if threads * 2 <= cores else cores
        threads *= 2
    return list(found.items())


def computed(settings: WorkerSettings, plan: BatchPlan, devices: list[str]) -> Tried:
    """What so many workers make side by side, one on each of the ``devices``.

    Raises:
        RunFailure: one of them ended.
    """
    processes = LoopProcesses(settings, plan, devices, GradientLoop)
    try:
        processes.turn(1)
        first = processes.turn(1)
        turn = processes.turn(max(1, round(SECONDS * first.rate / first.tokens)))
        return Tried(len(devices), settings.threads, turn.rate, turn.memory)
    finally:
        processes.close()


def measured(wanted: Iterable[Choice], measure: Callable[[Choice], Tried], there: int) -> list[Tried]:
    """Those of the choices that were tried, in their order, which begins with most workers.

    The last one, of fewest workers, is tried first, so that it is known how many have room in memory.

    Args:
        there: bytes of memory that they can have.
    """
    *more, fewest = wanted
    last = measure(fewest)
    room = max(1, int(MEMORY_SHARE * there / max(1, last.memory)))
    tried, slower = [], 0
    for choice in more:
        if choice[0] > room:
            continue
        try:
            tried.append(measure(choice))
        except RunFailure:  # so many have no room in memory
            continue
        slower = 0 if tried[-1].rate >= max(each.rate for each in tried) else slower + 1
        if slower == GIVES_UP:
            break
    return [*tried, last]


def best(tried: Sequence[Tried]) -> Tried:
    """Which computes most; of those that are as good, the one of fewest workers."""
    most = max(each.rate for each in tried)
    return min((each for each in tried if each.rate * WORTH >= most), key=lambda each: each.workers)


def said(tried: Sequence[Tried], chosen: Tried) -> str:
    """What was found, in a sentence."""
    others = [f"{each.named()} {about(each.rate)}" for each in tried if each is not chosen]
    beside = f" ({', '.join(others)})" if others else ""
    return f"{chosen.named()} compute most, about {about(chosen.rate)} target tokens a second{beside}"


def sampled(plan: BatchPlan, seed: int) -> BatchPlan:
    """A plan over at most `SENTENCES` of another's sentences, since each process that is measured makes the epoch."""
    count = len(plan.source_lengths)
    if count <= SENTENCES and plan.mixture is None:
        return plan
    chosen = np.sort(np.random.default_rng(seed).choice(count, min(count, SENTENCES), replace=False))
    indexes = chosen if plan.indexes is None else plan.indexes[chosen]
    lengths = np.asarray(plan.source_lengths)[chosen], np.asarray(plan.target_lengths)[chosen]
    return BatchPlan(*lengths, plan.budget, plan.seed, indexes)
