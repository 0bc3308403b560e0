"""Workers and a server whose vectors several devices own a part each: a run there is as one on one device.

Without GPUs both parts lie on the CPU, and workers do what they would do: they copy pulls and pushes, part by part.
Runs here are not clipped, where bits are compared: the norm of the whole is that of the norms of the parts, and so
differs by rounding. All else goes element by element.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from apart import APART, apart
from commands import PATIENCE
from killed_workers import assert_killed_workers_lose_no_batch_and_the_run_goes_on
from on_devices import needs
from pushing import PUSHES, pushed_by
from torch import Tensor
from training_runs import (
    assert_each_batch_counted,
    assert_same_state,
    kill_child,
    replayed,
    run_small,
    saved_state,
    small_options,
    typed,
)

from nmt_async.checkpoints.model_folder import layout_of
from nmt_async.cluster.worker import Worker
from nmt_async.process.sharded_tensor import ShardedTensor
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.prepared import PreparedData
from nmt_async.training import parts

CPU = torch.device("cpu")
SYNC: dict[str, Any] = {"sync_mode": "sync", "accumulate": 2, "clip_norm": 0.0}


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test lie in parts from here on."""
    monkeypatch.setattr(parts, "owners", lambda _devices: [CPU, CPU])


def run_in_parts(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(parts, "owners", lambda _devices: [CPU, CPU, CPU])
        witness = run_small(data, out, **changes)
    assert witness.warnings == []
    assert "lie in parts on several devices: " in witness.said


OPTIONS = {
    "adam": {"optimizer": "adam"},
    "averaged": {"exponential_smoothing": 0.1, "optimizer": "adamw", "weight_decay": 0.1},
    "muon": {"optimizer": "muon"},
    "muon in blocks": {"optimizer": "muon", "muon_rows": 8},
    "adan": {"optimizer": "adan"},
    "lion": {"optimizer": "lion"},
    "sgd": {"optimizer": "sgd"},
    "quantised pulls": {"quantize_bits": 4},
    "several batches a push": {"local_accumulate": 2},
    "bfloat16": {"push_dtype": "bfloat16", "workers": 1},
    "dropped": {"drop_gradients": 0.9, "workers": 1},
    "local gradients": {"drop_gradients": 0.9, "local_gradients": True, "workers": 1},
    "local optimizer": {"local_accumulate": 2, "local_optimizer": "sgd"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_in_parts_is_the_same_to_the_last_bit(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    options = {**SYNC, "stop_after": "5", **options}
    run_small(small_data, tmp_path / "whole", **options)
    run_in_parts(small_data, tmp_path / "parts", monkeypatch, **options)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


CORRECTED = {
    "gap-aware": {"staleness_rule": "gap-aware"},
    "compensated": {"staleness_rule": "delay-compensated", "adaptive_compensation": True},
    "feedback": {"delay_feedback": 1.0},
    "predicted": {"weight_prediction": "last-step"},
    "dana": {"momentum_lookahead": "dana", "optimizer": "sgd"},
    "dana-slim": {"momentum_lookahead": "dana-slim", "accumulate": 3, "sync_mode": "hybrid", "optimizer": "adam"},
    "dropped, compensated": {"staleness_rule": "delay-compensated", "drop_gradients": 0.9},
    "bfloat16, dana": {"momentum_lookahead": "dana", "push_dtype": "bfloat16", "optimizer": "adam"},
}


@pytest.mark.parametrize("options", CORRECTED.values(), ids=CORRECTED)
def test_a_run_in_parts_replays_to_the_last_bit(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    options = {"sync_mode": "async", "stop_after": "12", "clip_norm": 0.0, **options}
    run_in_parts(small_data, tmp_path / "run", monkeypatch, **options)
    assert torch.equal(replayed(tmp_path / "run", small_data), saved_state(tmp_path / "run")["parameters"])


@pytest.mark.parametrize("options", [{"optimizer": "adam"}, {"exponential_smoothing": 0.1}], ids=["adam", "muon"])
def test_a_run_goes_on_in_parts_and_the_other_way_round(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    options = {**SYNC, **options}
    run_small(small_data, tmp_path / "whole", stop_after="9", **options)
    turned = tmp_path / "turned"
    run_in_parts(small_data, turned, monkeypatch, stop_after="3", **options)
    run_small(small_data, turned, stop_after="6", **options)
    run_in_parts(small_data, turned, monkeypatch, stop_after="9", **options)
    assert_same_state(tmp_path / "whole", turned)


@pytest.mark.usefixtures("cut")
def test_killed_workers_lose_no_batch_in_parts_and_a_run_goes_on(small_data: Path, tmp_path: Path) -> None:
    assert_killed_workers_lose_no_batch_and_the_run_goes_on(small_data, tmp_path / "run", valid_freq="5")


MACHINES = {
    "sync": {"between": "sync"},
    "local": {"between": "local", "local_updates": 2, "outer_fragments": 2, "outer_dtype": "bfloat16"},
}
TRAIN = "import torch; from nmt_async.training import parts; {}; from nmt_async.cli.start import main; main()"
CUT = "parts.owners = lambda devices: [torch.device('cpu')] * 2"


@pytest.mark.parametrize("between", MACHINES.values(), ids=MACHINES)
def test_machines_exchange_what_lies_in_parts(
    small_data: Path, tmp_path: Path, port: int, between: dict[str, Any]
) -> None:
    """One machine's vectors lie in parts, and the other's do not."""
    place = {"workers": 1, "nodes": 2, "rendezvous": f"127.0.0.1:{port}", "stop_after": "6", "sync_mode": "sync"}
    trainers = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN.format(code), "train", str(small_data),
             *typed(tmp_path / "run", **{**place, **between}, node_rank=rank)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, code in enumerate((CUT, "pass"))
    ]  # fmt: skip
    try:
        said = [trainer.communicate(timeout=3 * PATIENCE)[0] for trainer in trainers]  # each imports torch for itself
    finally:
        for trainer in trainers:
            trainer.kill()
    assert [trainer.returncode for trainer in trainers] == [0, 0], said
    assert all(bool(tensor.isfinite().all()) for tensor in saved_state(tmp_path / "run").values())


@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_pulls_and_pushes_are_one_copy_for_each_part(training, push: PushSettings) -> None:
    """Both parts are elsewhere for the worker, and as many copies are made as of a vector that is elsewhere as a whole,
    twice; numbers of some places lie on the first device alone."""
    batches = [training.data.batch(range(begin, begin + 6)) for begin in (0, 6)]
    # Of two parts each: the pull, the push or what is left behind of it, and what was left before.
    vectors = 2 if not push.compressed else 3 if push.drop else 4
    vectors += push.local_gradients is not None
    made: list[list[Tensor]] = []
    with apart() as counted:

        def check() -> None:
            if len(places) == 2:
                assert counted["copied"] == 2 * vectors + (2 if push.drop else 0)
                assert counted["read"] == 0, "what is read was computed on the worker's own device"

        for places in ((CPU,), (APART, APART)):
            worker = Worker(training.model(0.2), 5, 0.1, CPU, push=push, vectors=places)
            whole = worker.layout.gather(training.model())
            middle = worker.layout.places[len(worker.layout.places) // 2].begin
            parameters = whole if len(places) == 1 else in_two(whole, middle)
            like = parameters if push.drop == 0 or len(places) == 1 else whole.to(APART)
            made.append(pushed_by(worker, parameters, like, batches, check))
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)


def in_two(vector: Tensor, middle: int) -> ShardedTensor:
    return ShardedTensor([part.to(APART) for part in (vector[:middle], vector[middle:])])


TWO = [pytest.param("cuda:0,cuda:1", marks=needs(2))]


@pytest.mark.parametrize("devices", TWO)
def test_what_is_shared_lies_on_both_gpus(small_data: Path, devices: str) -> None:
    layout = layout_of(parts.model_configuration(small_options(small_data), PreparedData.open(small_data)))
    warnings: list[str] = []
    memory = parts.shared_memory(devices.split(","), layout, PushSettings("bfloat16"), warnings.append)
    try:
        assert warnings == []
        assert memory.residual_rows is not None
        for tensor in (memory.ring.tensor, memory.slots.tensor, memory.residual_rows):
            assert isinstance(tensor, ShardedTensor)
            assert [str(part.device) for part in tensor.parts] == devices.split(",")
    finally:
        memory.close()


@pytest.mark.parametrize("devices", TWO)
@pytest.mark.parametrize("options", [{"optimizer": "adam"}, {"optimizer": "muon"}], ids=["adam", "muon"])
def test_a_run_on_two_gpus_is_as_one_on_the_first(
    small_data: Path, tmp_path: Path, devices: str, options: dict[str, Any]
) -> None:
    settings = {"sync_mode": "sync", "stop_after": "5", "dropout": 0.0, **options}
    for name, used in (("one", "cuda:0,cuda:0"), ("two", devices)):
        assert run_small(small_data, tmp_path / name, devices=used, **settings).warnings == []
    one, two = saved_state(tmp_path / "one"), saved_state(tmp_path / "two")
    torch.testing.assert_close(two["parameters"], one["parameters"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("devices", TWO)
@pytest.mark.parametrize("options", [
    {"push_dtype": "bfloat16"}, {"drop_gradients": 0.9, "staleness_rule": "delay-compensated"},
    {"momentum_lookahead": "dana", "optimizer": "sgd"},
], ids=str)  # fmt: skip
def test_killed_workers_lose_no_batch_on_two_gpus(
    small_data: Path, tmp_path: Path, devices: str, options: dict[str, Any]
) -> None:
    run, settings = tmp_path / "run", {"devices": devices, "sync_mode": "async", **options}
    first = run_small(small_data, run, {4: lambda: kill_child("worker 1")}, stop_after="1e", **settings)
    assert sum("a new one takes its place" in warning for warning in first.warnings) == 1
    run_small(small_data, run, stop_after="2e", **{**settings, "devices": "cuda:0,cuda:0"})
    assert assert_each_batch_counted(run, small_data, 2).set_aside == []
    assert all(bool(tensor.isfinite().all()) for tensor in saved_state(run).values())
