"""Whether the planned run fits the machine: its memory, its checkpoints, and its longest batches."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from nmt_async.checkpoints.model_folder import layout_of
from nmt_async.cluster.memory import Memory, bytes_shared
from nmt_async.cluster.sharding import owners
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.doctor.machine import shared_space
from nmt_async.doctor.trial import Tried, try_training, try_validation
from nmt_async.free_memory import available_memory
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.prepared import PreparedData
from nmt_async.training.activation_memory import longest_batches
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import checked_configuration, training_plan
from nmt_async.training.stated_memory import VECTOR_BYTES, Vectors, bytes_by_device, shards_for, vectors_of
from nmt_async.training.validation_scores import ValidationSettings, validation_plan
from nmt_async.translate.options import DecodingOptions
from nmt_async.writing import free_bytes

SENTENCES_AT_ONCE = DecodingOptions().mini_batch


def plan_findings(options: TrainOptions, data: PreparedData, trial: bool) -> Iterator[Finding]:
    """Of a run of ``options``, which are settled, on ``data``.

    Args:
        trial: whether to compute the longest batches.

    Raises:
        UserError: the options do not fit the data.
    """
    configuration = checked_configuration(options, data)
    plan, layout = training_plan(options, data), layout_of(configuration)
    size = layout.size
    workers, simulated = options.device_list(), options.cluster == "simulated"
    stated = vectors_of(options, layout, data.valid is not None)
    elsewhere = not simulated and owners(workers)[0].type != "cpu"
    need, there = Need(stated, size, elsewhere=elsewhere), available_memory()
    computing = 1 if simulated else len(workers)
    yield disk_finding(options, need)
    yield shared_finding(options, layout)
    alone = memory_finding(need, computing, there)
    if alone.verdict == "wrong" or not trial:
        yield alone
        return
    longest = longest_batches(plan.epoch(1), data.train)
    trained = try_training(
        WorkerSettings(
            data.folder.resolve(), configuration, options.seed, options.label_smoothing, options.threads(),
            options.push_settings(), options.computed_with(), options.precision,
        ),
        workers[0], longest, options.local_accumulate, options.seed,
    )  # fmt: skip
    yield _of_training(trained, options, f"{max(map(len, longest)):,} pairs")
    validated = _validated(options, data, configuration)
    if validated is not None:
        yield _of_validation(validated, options)
    on_cpu = workers[0] == "cpu"
    if not on_cpu:
        owned = {} if simulated else bytes_by_device(stated, options, layout)
        yield from _of_devices(trained, Counter(workers), owned)
    worker = trained.memory if on_cpu else 0
    validation = validated.memory if validated is not None else 0
    yield memory_finding(replace(need, worker=worker, validation=validation), computing, there)


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
        options.valid_beam_size, options.valid_sentences, options.quantization(),
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


def _of_devices(tried: Tried, workers: Counter[str], vectors: dict[str, int]) -> Iterator[Finding]:
    """Whether all workers of each GPU fit there together, with the server's vectors that it has, or its part of them.

    Args:
        vectors: bytes of these, by device.
    """
    for device, count in workers.items():
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        of_server = vectors.get(device, 0)
        wanted = count * tried.memory + of_server
        server = f" and {mebibytes(of_server)} for the server" if of_server else ""
        found = f"{count} x {mebibytes(tried.memory)}{server} needed on {device}, {mebibytes(free)} are free"
        if wanted > free:
            yield Finding(f"{device}", "wrong", found, "give fewer --workers, or fewer --mini-batch-words")
        else:
            yield Finding(f"{device}", "fine", found)


@dataclass(frozen=True)
class Need:
    """What a run takes.

    Attributes:
        vectors: how many of them.
        size: of one.
        worker, validation: bytes besides them that each process takes which computes gradients, and that of validation.
        elsewhere: the server computes on a device with memory of its own.
    """

    vectors: Vectors
    size: int
    worker: int = 0
    validation: int = 0
    elsewhere: bool = False

    def memory(self, workers: int) -> int:
        """Bytes, while a checkpoint is written."""
        kept = self.vectors.between_processes + self.vectors.server + self.vectors.checkpoint
        kept -= self.vectors.device if self.elsewhere else 0.0
        return round(VECTOR_BYTES * self.size * kept) + workers * self.worker + self.validation

    def disk(self, keep_last: int, keep_best: int) -> int:
        """Bytes of all checkpoints and models that are ever there at once: one more of each is being written, and the
        newest checkpoint may rely on best models that are none any more."""
        model = VECTOR_BYTES * self.size
        return round((keep_last + 1) * self.vectors.checkpoint * model) + (2 * keep_best + 1) * model


def memory_finding(need: Need, workers: int, there: int) -> Finding:
    """Whether all processes together find the memory that they need, of ``there`` bytes."""
    wanted = need.memory(workers)
    found = f"about {mebibytes(wanted)} needed of {mebibytes(there)} that can be had"
    if wanted <= there:
        return Finding("memory", "fine", found)
    return Finding("memory", "wrong", found, "give fewer --workers, fewer --mini-batch-words or a smaller model")


def shared_finding(options: TrainOptions, layout: FlatLayout) -> Finding:
    """Whether the system gives the memory that the processes share."""
    workers, size, shards = len(options.device_list()), layout.size, shards_for(options, layout)
    place = ", ".join(str(shard.device) for shard in shards)
    if options.cluster == "simulated":
        return Finding("shared memory", "fine", f"none needed; {shared_space()}")
    push = options.push_settings()
    wanted = mebibytes(bytes_shared(workers, size, push))
    try:
        Memory(workers, size, push, shards).close()
    except OSError as error:
        problem = f"{wanted} cannot be had ({(error.strerror or str(error)).lower()})"
        return Finding("shared memory", "wrong", problem, "raise the limit (ulimit), or give fewer --workers")
    except torch.OutOfMemoryError:
        return Finding("shared memory", "wrong", f"{wanted} cannot be had on {place}", "give fewer --workers")
    except RuntimeError as error:
        problem = f"processes cannot share memory of {place} ({str(error).splitlines()[0]})"
        return Finding("shared memory", "note", problem, "the gradients go through the CPU's")
    if shards[0].device.type != "cpu":
        return Finding("shared memory", "fine", f"{wanted} can be had on {place}; {shared_space()}")
    return Finding("shared memory", "fine", f"{wanted} can be had, outside /dev/shm; {shared_space()}")


def disk_finding(options: TrainOptions, need: Need) -> Finding:
    """Whether the run's folder can be written, and has room for the planned checkpoints."""
    folder = options.out
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nmt-async")
        free = free_bytes(folder)
    except OSError as error:
        problem = f"{options.out} cannot be written ({(error.strerror or str(error)).lower()})"
        return Finding("disk", "wrong", problem, "give another --out, or make it writable")
    kept = sum(path.stat().st_size for path in (options.out / "checkpoints").glob("*-*/*"))
    wanted = max(0, need.disk(options.keep_last, options.keep_best) - kept)
    found = f"{mebibytes(wanted)} needed for checkpoints in {options.out}, {mebibytes(free)} are free"
    if wanted <= free:
        return Finding("disk", "fine", found)
    advice = f"free {mebibytes(wanted - free)}, give fewer --keep-last or --keep-best, or another --out"
    return Finding("disk", "wrong", found, advice)
