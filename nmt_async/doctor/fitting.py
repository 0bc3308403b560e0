"""Whether the planned run fits the machine: its memory, its checkpoints, and its longest batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from nmt_async.cluster.worker_process import WorkerSettings
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.doctor.longest import longest_batches
from nmt_async.doctor.room import Need, available_memory, disk_finding, memory_finding, shared_finding
from nmt_async.doctor.trial import Tried, try_training, try_validation
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import vectors
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import model_configuration, training_plan
from nmt_async.training.validation_scores import ValidationSettings, validation_plan
from nmt_async.translate.options import DecodingOptions

SENTENCES_AT_ONCE = DecodingOptions().mini_batch


def plan_findings(options: TrainOptions, data: PreparedData, trial: bool) -> Iterator[Finding]:
    """Of a run of ``options``, which are settled, on ``data``.

    Args:
        trial: whether to compute the longest batches.

    Raises:
        UserError: the options do not fit the data.
    """
    configuration = model_configuration(options, data)
    plan = training_plan(options, data)
    with torch.device("meta"):  # its sizes without its memory
        size = FlatLayout(build_model(configuration)).size
    workers, simulated = options.device_list(), options.cluster == "simulated"
    stated = vectors(
        options.rule(), len(workers), average=bool(options.exponential_smoothing), validation=data.valid is not None,
        simulated=simulated, push_batches=options.local_accumulate,
    )  # fmt: skip
    need, there = Need(stated, size), available_memory()
    computing = 1 if simulated else len(workers)
    yield disk_finding(options, need)
    yield shared_finding(options, size)
    alone = memory_finding(need, computing, there)
    if alone.verdict == "wrong" or not trial:
        yield alone
        return
    longest = longest_batches(plan.epoch(1), data.train)
    trained = try_training(
        WorkerSettings(data.folder.resolve(), configuration, options.seed, options.label_smoothing, options.threads()),
        workers[0], longest, options.local_accumulate, options.seed,
    )  # fmt: skip
    yield _of_training(trained, options, f"{max(map(len, longest)):,} pairs")
    validated = _validated(options, data, configuration)
    if validated is not None:
        yield _of_validation(validated, options)
    on_cpu = workers[0] == "cpu"
    if not on_cpu:
        yield from _of_devices(trained, Counter(workers))
    worker = trained.memory if on_cpu else 0
    validation = validated.memory if validated is not None else 0
    yield memory_finding(Need(stated, size, worker, validation), computing, there)


def _of_training(tried: Tried, options: TrainOptions, pairs: str) -> Finding:
    check = "longest training batch"
    less = f"give fewer --mini-batch-words (now {options.mini_batch_words:,}) or a smaller --max-length"
    if tried.problem:
        return Finding(check, "wrong", f"could not be computed ({tried.problem})", less)
    if tried.pieces > 1:
        found = f"does not fit in memory: it was computed in {tried.pieces} pieces, as train would do, slowly"
        return Finding(check, "wrong", found, less)
    return Finding(check, "fine", f"{pairs}: {tried.seconds:.1f} seconds, {mebibytes(tried.memory)}")


def _validated(options: TrainOptions, data: PreparedData, configuration: ModelConfiguration) -> Tried | None:
    """The validation batch with the most tokens, and the longest lines; None where there are none."""
    if data.valid is None:
        return None
    settings = ValidationSettings(
        data.folder.resolve(), configuration, options.valid_translate or options.metric != "cross-entropy",
        options.valid_beam_size, options.valid_sentences,
    )  # fmt: skip
    lines: list[str] = []
    if settings.translate:
        sources = data.valid_lines()[0]
        count = min(settings.sentences or len(sources), len(sources))
        order = data.valid.source.lengths[:count].argsort(kind="stable")[::-1]
        lines = [sources[row] for row in order[:SENTENCES_AT_ONCE]]
    return try_validation(settings, longest_batches(validation_plan(data.valid), data.valid), lines, options.seed)


def _of_validation(tried: Tried, options: TrainOptions) -> Finding:
    check = "longest validation batch"
    if tried.problem:
        advice = f"give a smaller --valid-beam-size (now {options.valid_beam_size}), or --no-valid-translate"
        return Finding(check, "wrong", f"could not be computed ({tried.problem})", advice)
    found = f"beam {options.valid_beam_size}: {tried.seconds:.1f} seconds, {mebibytes(tried.memory)}"
    return Finding(check, "fine", found)


def _of_devices(tried: Tried, workers: Counter[str]) -> Iterator[Finding]:
    """Whether all workers of each GPU fit there together."""
    for device, count in workers.items():
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        wanted = count * tried.memory
        found = f"{count} x {mebibytes(tried.memory)} needed on {device}, {mebibytes(free)} are free"
        if wanted > free:
            yield Finding(f"{device}", "wrong", found, "give fewer --workers, or fewer --mini-batch-words")
        else:
            yield Finding(f"{device}", "fine", found)
