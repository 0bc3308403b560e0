"""The parts that a run, its description and a replay build from the same options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.processes import Memory
from nmt_async.errors import RunFailure, UserError
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.sync.journal import Event
from nmt_async.sync.rules import Rule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import Expectation, expectation
from nmt_async.training.initial import adopted
from nmt_async.training.options import TrainOptions


def training_plan(options: TrainOptions, data: PreparedData) -> BatchPlan:
    """The batch plan over the pairs that are short enough.

    Raises:
        UserError: no pair is short enough.
    """
    source, target = data.train.source.lengths, data.train.target.lengths
    fitting = np.flatnonzero(np.maximum(source, target) <= options.max_length)
    if not len(fitting):
        raise UserError(f"--max-length {options.max_length}: no training pair in {data.folder} is so short.")
    return BatchPlan(
        source[fitting],
        target[fitting],
        options.mini_batch_words,
        options.seed,
        fitting,
        parts=options.local_accumulate,
    )


def expected(options: TrainOptions, plan: BatchPlan) -> Expectation:
    """What to expect of the updates of a run."""
    return expected_of(options.rule(), len(options.device_list()), options.local_accumulate, plan)


def expected_of(rule: Rule, workers: int, push_batches: int, plan: BatchPlan) -> Expectation:
    """What to expect of updates by a rule, from so many workers."""
    return expectation(rule, workers, int(plan.target_lengths.sum()), len(plan.epoch(1)), push_batches)


def expected_lines(options: TrainOptions, plan: BatchPlan) -> list[str]:
    """The same in words, and what the schedule's amounts are in other units."""
    updates = expected(options, plan)
    amounts = {"--lr-warmup": options.lr_warmup, "--lr-decay-end": options.lr_decay_end}
    if options.lr_decay not in ("linear", "cosine"):
        del amounts["--lr-decay-end"]
    lines = [updates.update_text(), updates.amounts_text(amounts | {"--stop-after": options.stop_after})]
    return [line for line in lines if line]


def build_coordinator(
    options: TrainOptions,
    plan: BatchPlan,
    buffers: Tensor,
    record: Callable[[Event], None],
    warn: Callable[[str], None],
    endless: bool = False,
) -> Coordinator:
    """Server and plan as the options say; ``buffers[0]`` holds the initial parameters.

    Args:
        endless: whenever the options say that the stream ends.
    """
    server = ParameterServer(buffers, options.rule(), options.schedule(options.stop_after), options.settings())
    stop = options.stop_after
    last_epoch = int(stop.amount) if stop and stop.unit == "epochs" and stop.amount == int(stop.amount) else None
    if endless:
        last_epoch = None
    return Coordinator(server, plan, record, warn, last_epoch)


def model_configuration(options: TrainOptions, data: PreparedData) -> ModelConfiguration:
    """The model that the options name, for the data's vocabularies.

    Raises:
        UserError: they name none that there can be.
    """
    options = adopted(options)
    # A model that somebody trained may have one matrix for two vocabularies of like indexes.
    joint = data.joint or options.init_from is not None
    return options.configuration(data.source_vocabulary.size, data.target_vocabulary.size, joint)


def shared_memory(workers: int, size: int) -> Memory:
    """What the workers and the server share.

    Raises:
        RunFailure: the system does not give it.
    """
    try:
        return Memory(workers, size)
    except OSError as error:
        need = math.ceil(4 * (2 * workers + 1) * size / 2**20)
        raise RunFailure(
            f"{need:,} MiB of shared memory cannot be had ({error.strerror or error}); "
            f"use fewer --workers or a smaller model."
        ) from None


@contextmanager
def within_memory() -> Iterator[None]:
    """What is allocated inside fits, or a sentence says that it does not.

    Raises:
        RunFailure: it does not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch has no type for it
            raise
        raise RunFailure("the model does not fit this machine's memory; choose a smaller --preset or width.") from None
