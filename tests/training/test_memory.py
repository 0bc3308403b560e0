"""The memory that is stated is the memory that a run's parts take."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from apart import APART, apart
from torch import Tensor
from training_runs import run_small, small_options

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.planning.simulation import even_plan
from nmt_async.process.sharded_tensor import ShardedTensor
from nmt_async.quantity import Quantity
from nmt_async.sync import (
    CorrectionSettings,
    OptimizerSettings,
    ParameterServer,
    Rule,
    Schedule,
    build_corrections,
    rule_for,
)
from nmt_async.sync.compression.message import Slots, form_of
from nmt_async.sync.compression.settings import WHOLE, LocalGradients, PushSettings
from nmt_async.sync.corrections.settings import NONE
from nmt_async.sync.optimizers.flat import memory_of
from nmt_async.sync.optimizers.muon import Muon
from nmt_async.sync.optimizers.settings import OPTIMIZERS
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator, model_configuration, residual_rows, training_plan
from nmt_async.training.run_folder import read_options, settled
from nmt_async.training.stated_memory import (
    VECTOR_BYTES,
    bytes_by_device,
    optimizer_memory,
    shards_for,
    vectors,
    vectors_of,
)

SIZE = 64
MATRIX = Matrix(16, 4, 4)
"""Of a vector of `SIZE`."""


PUSHES = [WHOLE, PushSettings("bfloat16"), PushSettings(drop=0.75), PushSettings("bfloat16", 0.875)]


def coordinator(
    rule: Rule,
    workers: int,
    settings: OptimizerSettings,
    corrected: CorrectionSettings = NONE,
    push: PushSettings = WHOLE,
) -> Coordinator:
    buffers = torch.zeros(workers + 1, SIZE)
    schedule = Schedule(0.1, Quantity(1, "updates"))
    corrections = build_corrections(corrected, settings, buffers[0], workers, 1.0)
    residuals = residual_rows(push, workers, SIZE)
    server = ParameterServer(buffers, rule, schedule, settings, [MATRIX], corrections, residuals)
    return Coordinator(server, even_plan(1, 99), lambda _: None, lambda _: None)


def in_vectors(tensors: dict[str, Tensor]) -> float:
    """All but single numbers."""
    return sum(tensor.nbytes / (VECTOR_BYTES * SIZE) for tensor in tensors.values() if tensor.shape)


@pytest.mark.parametrize("push", PUSHES, ids=str)
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("settings", [
    *(OptimizerSettings(name=name) for name in OPTIMIZERS), OptimizerSettings(name="sgd", momentum=0.0),
], ids=lambda settings: f"{settings.name} {settings.momentum}")  # fmt: skip
@pytest.mark.parametrize(("mode", "workers", "accumulate"), [
    ("sync", 3, 1), ("sync", 3, 2), ("sync", 1, 3), ("async", 3, 1), ("hybrid", 2, 4),
])  # fmt: skip
def test_stated_vectors_are_those_that_the_server_holds_at_most(
    mode: str, workers: int, accumulate: int, settings: OptimizerSettings, average: bool, push: PushSettings
) -> None:
    rule = rule_for(mode, workers, accumulate)
    settings = replace(settings, smoothing=0.1 if average else 0.0)
    optimizer = memory_of(torch.empty(SIZE), settings, [MATRIX])
    stated = vectors(rule, workers, optimizer, average=average, validation=True, simulated=False, push=push)
    parts, slots = coordinator(rule, workers, settings, push=push), Slots.of(form_of(push, SIZE), workers)
    for worker in range(workers):
        assert parts.next_task(worker) is not None
    most = 0.0
    # The first batch is the last to come.
    while others := [worker for worker in parts.ledger.out if worker != 0]:
        parts.push(others[0], Computed(0.0, 1, 1, 1.0), slots.message(others[0], slots.form.columns))
        most = max(most, in_vectors(parts.state()[1]) + (not parts.server.buffer.summed))
        if parts.ledger.events < 9 * workers * accumulate:
            parts.next_task(others[0])
    expected = 1 + stated.sum + stated.held * stated.slot + stated.moments + stated.average + stated.residuals / 2
    if workers > 1:
        assert most == expected
    assert stated.checkpoint == expected + 1


@pytest.mark.parametrize(("mode", "accumulate"), [("async", 1), ("hybrid", 4)])
@pytest.mark.parametrize("corrected", [
    CorrectionSettings("gap-aware"), CorrectionSettings("delay-compensated", adaptive=True),
    CorrectionSettings("scale", feedback=1.0), CorrectionSettings(prediction="last-step"),
    CorrectionSettings(momentum="dana"), CorrectionSettings(momentum="dana-slim"),
], ids=lambda settings: f"{settings.rule} {settings.feedback} {settings.prediction} {settings.momentum}")  # fmt: skip
def test_so_are_those_of_what_corrects_stale_gradients(
    mode: str, accumulate: int, corrected: CorrectionSettings
) -> None:
    rule = rule_for(mode, 3, accumulate)
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings(), [MATRIX])
    stated = vectors(rule, 3, optimizer, average=False, validation=True, simulated=False, corrections=corrected)
    parts = coordinator(rule, 3, OptimizerSettings(), corrected)
    most = 0.0
    for turn in range(4 * accumulate):
        worker = turn % 3
        assert parts.next_task(worker) is not None
        parts.push(worker, Computed(0.0, 1, 1, 1.0), torch.ones(SIZE))
        most = max(most, in_vectors(parts.state()[1]) + (not parts.server.buffer.summed))
    expected = 1 + stated.sum + stated.moments + stated.corrections
    assert stated.checkpoint == expected + 1
    # A look-ahead has the parameters beside what pulls give, and a checkpoint has them once.
    assert most == expected - (parts.server.corrections.look_ahead is not None)


ADAM = OptimizerSettings(name="adam")
SGD = OptimizerSettings(name="sgd", momentum=0.0, nesterov=False)


def large_tensors(size: int) -> dict[int, int]:
    """Bytes of the memory of each tensor in this process that is as large as a vector, by its address."""
    gc.collect()
    found = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.numel() >= size]
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}


@pytest.mark.parametrize("push", [
    WHOLE, PushSettings(drop=0.9), PushSettings(drop=0.9, local_gradients=LocalGradients(2)),
    PushSettings(local_optimizer=SGD), PushSettings("bfloat16", local_optimizer=ADAM),
], ids=str)  # fmt: skip
def test_a_worker_keeps_the_vectors_that_are_stated_besides_torchs_own(small_data: Path, push: PushSettings) -> None:
    """Torch's gradients, and their sum where a push sums several batches, are of the parameters' sizes."""
    data = PreparedData.open(small_data)
    model = build_model(model_configuration(small_options(small_data), data), seed=1)
    size = FlatLayout(model).size
    before = large_tensors(size)
    worker = Worker(model, 1, 0.1, torch.device("cpu"), push=push)
    slots, rows = Slots.of(worker.form, 1), residual_rows(push, 1, size)
    parameters = worker.layout.gather(model)
    batches = [data.train.batch(range(4)), data.train.batch(range(4, 8))]
    worker.compute(parameters, slots.room(0, rows, 0), batches, BatchId(1, 0), rate=0.1)
    given = [parameters, slots.values, *([] if rows is None else [rows])]
    known = {*before, *(each.untyped_storage().data_ptr() for each in given)}
    own = sum(taken for place, taken in large_tensors(size).items() if place not in known)
    options: dict[str, Any] = {"average": False, "validation": True, "simulated": False, "push_batches": 2}
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings())
    stated = vectors(rule_for("async", 1), 1, optimizer, **options, push=push)
    assert own == VECTOR_BYTES * size * (stated.gradients - 2)


def test_a_worker_that_copies_keeps_two_vectors_more(small_data: Path) -> None:
    data = PreparedData.open(small_data)
    model = build_model(model_configuration(small_options(small_data), data), seed=1)
    size = FlatLayout(model).size
    before = large_tensors(size)
    worker = Worker(model, 1, 0.1, torch.device("cpu"), vectors=[torch.device("cpu")] * 2)
    parameters, slot = worker.layout.gather(model), torch.zeros(size)
    worker.compute(parameters, slot, [data.train.batch(range(4))], BatchId(1, 0))
    known = {*before, *(each.untyped_storage().data_ptr() for each in (parameters, slot))}
    own = sum(taken for place, taken in large_tensors(size).items() if place not in known)
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings())
    options: dict[str, Any] = {"average": False, "validation": True, "simulated": False}
    stated = [vectors(rule_for("async", 1, 1), 1, optimizer, **options, copied=copied) for copied in (False, True)]
    assert own == VECTOR_BYTES * size * (stated[1].gradients - stated[0].gradients) == VECTOR_BYTES * size * 2


OWNED: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "exponential_smoothing": 0.1},
    "muon": {"optimizer": "muon"},
    "muon in blocks": {"optimizer": "muon", "muon_rows": 8},
    "bfloat16": {"push_dtype": "bfloat16"},
    "dropped": {"drop_gradients": 0.9},
    "corrected": {"staleness_rule": "gap-aware", "sync_mode": "async"},
}
HERE = torch.device("cpu")


@pytest.mark.parametrize("options", OWNED.values(), ids=OWNED)
def test_what_each_of_two_devices_owns_is_stated(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Counted are all tensors of a server and of the memory that it shares, by their devices."""
    run, data = settled(small_options(small_data, **options)), PreparedData.open(small_data)
    monkeypatch.setattr(TrainOptions, "device_list", lambda _self: ["cuda:0", "cuda:1"])
    layout = FlatLayout(build_model(model_configuration(run, data), seed=1))
    stated = vectors_of(run, layout, validation=True)
    found = bytes_by_device(stated, run, layout)
    shards = [replace(shard, device=place) for shard, place in zip(shards_for(run, layout), (HERE, APART), strict=True)]
    push, form = run.push_settings(), form_of(run.push_settings(), layout.size)

    def zeros(rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return ShardedTensor([torch.zeros(rows, shard.size, dtype=dtype, device=shard.device) for shard in shards])

    with apart():
        ring, residuals = zeros(3), zeros(4) if push.compressed else None
        server = build_coordinator(
            run, training_plan(run, data), layout, ring, lambda _: None, lambda _: None, residuals=residuals
        ).server
        slots = [zeros(2, form.dtype)]
        if push.drop:
            some = Slots.of(form, 2)
            assert some.indices is not None
            slots = [some.values, some.indices]
        tensors = [ring, *slots, server.buffer.sum, *([] if residuals is None else [residuals])]
        ahead = server.corrections.look_ahead is not None  # then the parameters are not in the ring
        tensors += [tensor for name, tensor in server.vectors().items() if ahead or name != "parameters"]
        step = server.optimizer._step
        tensors += [room for rooms in step._work.values() for room in rooms] if isinstance(step, Muon) else []
        counted: Counter[torch.device] = Counter()
        for tensor in tensors:
            for part in tensor.parts if isinstance(tensor, ShardedTensor) else [tensor]:
                counted[part.device] += part.nbytes
    numbers = 64  # bytes of what is no vector
    for amount, place in zip(found.values(), (HERE, APART), strict=True):
        assert amount == pytest.approx(counted[place], abs=numbers)
    assert sum(found.values()) == pytest.approx(VECTOR_BYTES * layout.size * stated.device, abs=numbers)


def test_it_is_said_what_lies_on_each_device() -> None:
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings())
    stated = vectors(
        rule_for("async", 2, 1), 2, optimizer, average=False, validation=True, simulated=False, copied=True
    )
    assert stated.rows(2**18, {"cuda:0": 5 << 20, "cuda:1": 3 << 20}) == {
        "memory, CPU": "1 MiB: the copy under validation",
        "memory, shared": "5 MiB on cuda:0, cuda:1: 3 parameter buffers and 2 gradient slots",
        "memory, server": "3 MiB on cuda:0, cuda:1: the sum of pushes, Adam's moments",
        "memory, parts": "5 MiB on cuda:0, 3 MiB on cuda:1, of what is shared and the server's",
        "memory, besides": "3 MiB in each worker for gradients under way; 5 MiB from the first checkpoint on",
    }


def shared_bytes() -> int:
    """Of the nameless files of vectors that this process holds open, each counted once."""
    gc.collect()  # memory that a test before this one shared goes with its last tensor
    sizes = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(descriptor).startswith("/memfd:nmt-async "):
                status = os.stat(descriptor)
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


@pytest.mark.parametrize(("smoothing", "push"), [
    (0.0, {}), (0.1, {}), (0.0, {"push_dtype": "bfloat16"}),
    (0.0, {"push_dtype": "bfloat16", "drop_gradients": 0.875}),
], ids=str)  # fmt: skip
def test_the_shared_part_is_what_a_run_shares_with_its_processes(
    small_data: Path, tmp_path: Path, smoothing: float, push: dict[str, Any]
) -> None:
    before, held = shared_bytes(), []
    options = {"workers": 3, "sync_mode": "hybrid", "accumulate": 2, "exponential_smoothing": smoothing, **push}
    acts = {4: lambda: held.append(shared_bytes() - before)}
    run_small(small_data, tmp_path / "run", acts, **options, valid_freq="2", stop_after="6")
    run = read_options(tmp_path / "run")
    model = build_model(model_configuration(run, PreparedData.open(small_data)), seed=1)
    layout = FlatLayout(model)
    optimizer = optimizer_memory(run, layout)
    stated = vectors(run.rule(), 3, optimizer, average=smoothing > 0, validation=True, simulated=False,
                     push=run.push_settings())  # fmt: skip
    numbers = 8 * 3  # which task each worker is to leave: nothing that counts beside a model
    assert held == [VECTOR_BYTES * layout.size * stated.between_processes + numbers]


@pytest.mark.parametrize(("options", "said"), [
    ({"simulated": False}, {
        "memory, shared": "8 MiB: 4 parameter buffers and 3 gradient slots, the copy under validation",
        "memory, server": "6 MiB: the sum of pushes, Adam's moments, the moving average, "
        "up to 2 pushes before their turn",
        "memory, besides": "1 MiB in each worker for gradients under way; "
        "8 MiB from the first checkpoint on"}),
    ({"simulated": True, "push_batches": 2}, {
        "memory": "11 MiB in one process: 1 parameter buffer and 3 gradient slots, the copy under validation, "
        "the sum of pushes, Adam's moments, the moving average, up to 2 pushes before their turn",
        "memory, besides": "2 MiB in it for gradients under way; "
        "11 MiB from the first checkpoint on"}),
    ({"simulated": False, "push_batches": 2, "push": PushSettings(drop=0.5, local_optimizer=ADAM)}, {
        "memory, shared": "17 MiB: 4 parameter buffers and 3 gradient slots, 6 residuals, the copy under validation",
        "memory, server": "8 MiB: the sum of pushes, Adam's moments, the moving average, "
        "up to 2 pushes before their turn",
        "memory, besides": "6 MiB in each worker for gradients under way; "
        "13 MiB from the first checkpoint on"}),
    ({"simulated": False, "push": PushSettings("bfloat16")}, {
        "memory, shared": "12 MiB: 4 parameter buffers and 3 gradient slots, 6 residuals, the copy under validation",
        "memory, server": "5 MiB: the sum of pushes, Adam's moments, the moving average, "
        "up to 2 pushes before their turn",
        "memory, besides": "1 MiB in each worker for gradients under way; "
        "10 MiB from the first checkpoint on"}),
])  # fmt: skip
def test_it_is_said_what_the_memory_is_for(options: dict[str, Any], said: dict[str, str]) -> None:
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings())
    stated = vectors(rule_for("sync", 3, 1), 3, optimizer, average=True, validation=True, **options)
    assert stated.rows(2**18) == said


@pytest.mark.parametrize(("settings", "remembered", "said"), [
    ({"name": "adamw"}, 2, "Adam's moments"),
    ({"name": "muon"}, 1 + 48 / 64, "Muon's momentum, and Adam's second moment of what is no hidden matrix, room to "
     "make an update"),
    ({"name": "adan"}, 4, "Adan's moments and the gradient before"),
    ({"name": "lion"}, 1, "Lion's momentum"),
    ({"name": "sgd"}, 1, "the momentum"),
    ({"name": "sgd", "momentum": 0.0}, 0, ""),
])  # fmt: skip
def test_it_is_said_what_each_optimizer_remembers(settings: dict[str, Any], remembered: float, said: str) -> None:
    optimizer = memory_of(torch.empty(SIZE), OptimizerSettings(**settings), [MATRIX])
    stated = vectors(rule_for("async", 1, 1), 1, optimizer, average=False, validation=False, simulated=False)
    assert stated.moments == remembered
    text = ", ".join(filter(None, ("the sum of pushes", said)))
    mebibytes = 1 + remembered + optimizer.working
    assert stated.rows(2**18)["memory, server"] == f"{mebibytes:,.0f} MiB: {text}"


LARGE = 9 * 2**20
"""Elements, 36 MiB: so many that what else a process takes does not matter."""
MEASURE = f"""
import json
import sys
from pathlib import Path
import torch
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix

def mebibytes(name):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024

def take(settings, size, matrices):
    parameters, gradient = torch.ones(size), torch.ones(size)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what it is now
    before = mebibytes("VmRSS")
    optimizer = FlatOptimizer(parameters, settings, matrices)
    for _ in range(2):
        optimizer.step(parameters, gradient.fill_(1.0), 1, 0.1)
    return mebibytes("VmHWM") - before

torch.set_num_threads(1)
matrices = [Matrix(4096, 2048, 2048), Matrix(4096 + 2**22, 1024, 2048)]
for settings in json.loads(sys.argv[1]):
    settings = OptimizerSettings(**settings)
    take(settings, 2**19, [Matrix(0, 512, 512), Matrix(2**18, 256, 512)])  # what kernels keep for themselves
    print(take(settings, {LARGE}, matrices))
"""


def test_a_step_takes_the_memory_that_is_stated() -> None:
    choices: list[dict[str, Any]] = [*({"name": name} for name in OPTIMIZERS), {"name": "muon", "muon_rows": 64}]
    words = [sys.executable, "-c", MEASURE, json.dumps(choices)]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is the system's at once, and not the next one's
    environment = {**os.environ, **given_back}
    done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=True, env=environment)
    matrices = [Matrix(4096, 2048, 2048), Matrix(4096 + 2**22, 1024, 2048)]
    for choice, found in zip(choices, map(float, done.stdout.split()), strict=True):
        stated = memory_of(torch.empty(LARGE, device="meta"), OptimizerSettings(**choice), matrices)
        expected = (stated.remembered + stated.working) * VECTOR_BYTES * LARGE / 2**20
        assert found == pytest.approx(expected, abs=8), choice
