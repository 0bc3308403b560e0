"""The memory that is stated is the memory that a run's parts take."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import run_small

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.task import Computed
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.planning.simulation import even_plan
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
from nmt_async.sync.corrections.settings import NONE
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import VECTOR_BYTES, vectors
from nmt_async.training.parts import model_configuration
from nmt_async.training.run_folder import read_options

SIZE = 16


def coordinator(rule: Rule, workers: int, average: bool, corrected: CorrectionSettings = NONE) -> Coordinator:
    settings = OptimizerSettings(smoothing=0.1 if average else 0.0)
    buffers = torch.zeros(workers + 1, SIZE)
    schedule = Schedule(0.1, Quantity(1, "updates"))
    corrections = build_corrections(corrected, settings, buffers[0], workers, 1.0)
    server = ParameterServer(buffers, rule, schedule, settings, corrections=corrections)
    return Coordinator(server, even_plan(1, 99), lambda _: None, lambda _: None)


def of_model_size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() // SIZE for tensor in tensors.values())


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize(("mode", "workers", "accumulate"), [
    ("sync", 3, 1), ("sync", 3, 2), ("sync", 1, 3), ("async", 3, 1), ("hybrid", 2, 4),
])  # fmt: skip
def test_stated_vectors_are_those_that_the_server_holds_at_most(
    mode: str, workers: int, accumulate: int, average: bool
) -> None:
    rule = rule_for(mode, workers, accumulate)
    stated = vectors(rule, workers, average=average, validation=True, simulated=False)
    parts = coordinator(rule, workers, average)
    for worker in range(workers):
        assert parts.next_task(worker) is not None
    most = 0
    # The first batch is the last to come.
    while others := [worker for worker in parts.ledger.out if worker != 0]:
        parts.push(others[0], Computed(0.0, 1, 1, 1.0), torch.ones(SIZE))
        most = max(most, of_model_size(parts.state()[1]) + (not parts.server.buffer.summed))
        if parts.ledger.events < 9 * workers * accumulate:
            parts.next_task(others[0])
    expected = 1 + stated.sum + stated.held + stated.moments + stated.average
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
    stated = vectors(rule, 3, average=False, validation=True, simulated=False, corrections=corrected)
    parts = coordinator(rule, 3, False, corrected)
    most = 0
    for turn in range(4 * accumulate):
        worker = turn % 3
        assert parts.next_task(worker) is not None
        parts.push(worker, Computed(0.0, 1, 1, 1.0), torch.ones(SIZE))
        most = max(most, of_model_size(parts.state()[1]) + (not parts.server.buffer.summed))
    expected = 1 + stated.sum + stated.moments + stated.corrections
    assert stated.checkpoint == expected + 1
    # A look-ahead has the parameters beside what pulls give, and a checkpoint has them once.
    assert most == expected - (parts.server.corrections.look_ahead is not None)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_shared_part_is_what_a_run_shares_with_its_processes(
    small_data: Path, tmp_path: Path, smoothing: float
) -> None:
    before, held = shared_bytes(), []
    options = {"workers": 3, "sync_mode": "hybrid", "accumulate": 2, "exponential_smoothing": smoothing}
    acts = {4: lambda: held.append(shared_bytes() - before)}
    run_small(small_data, tmp_path / "run", acts, **options, valid_freq="2", stop_after="6")
    run = read_options(tmp_path / "run")
    model = build_model(model_configuration(run, PreparedData.open(small_data)), seed=1)
    stated = vectors(run.rule(), 3, average=smoothing > 0, validation=True, simulated=False)
    numbers = 8 * 3  # which task each worker is to leave: nothing that counts beside a model
    assert held == [VECTOR_BYTES * FlatLayout(model).size * stated.between_processes + numbers]


@pytest.mark.parametrize(("options", "said"), [
    ({"simulated": False}, {
        "memory, shared": "8 MiB: 4 parameter buffers and 3 gradient slots, the copy under validation",
        "memory, server": "6 MiB: the sum of pushes, Adam's moments, the moving average, "
        "up to 2 pushes before their turn",
        "memory, besides": "1 MiB in each worker for gradients under way, and activations; "
        "8 MiB from the first checkpoint on"}),
    ({"simulated": True, "push_batches": 2}, {
        "memory": "11 MiB in one process: 1 parameter buffer and 3 gradient slots, the copy under validation, "
        "the sum of pushes, Adam's moments, the moving average, up to 2 pushes before their turn",
        "memory, besides": "2 MiB in it for gradients under way, and activations; "
        "11 MiB from the first checkpoint on"}),
])  # fmt: skip
def test_it_is_said_what_the_memory_is_for(options: dict[str, Any], said: dict[str, str]) -> None:
    stated = vectors(rule_for("sync", 3, 1), 3, average=True, validation=True, **options)
    assert stated.rows(2**18) == said
