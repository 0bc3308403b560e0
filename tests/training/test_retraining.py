"""``train --quantize-bits``: gradients of the quantised model, which is what the run writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from nmt_async.cli.main import run as run_command
from safetensors.torch import load_file
from training_runs import assert_same_state, replayed, run_small, saved_state

from nmt_async import Translator
from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.model.quantization_options import Quantization
from nmt_async.text.prepared import PreparedData
from nmt_async.training.interruptions import Interrupted
from nmt_async.training.validation_scores import sentence_losses
from tests.training.test_shared_runs import run_both

WAYS: dict[str, dict[str, Any]] = {
    "sync": {"sync_mode": "sync"},
    "async": {"sync_mode": "async"},
    "hybrid": {"sync_mode": "hybrid", "accumulate": 2},
    "feedback": {"sync_mode": "hybrid", "accumulate": 2, "weight_prediction": "none", "delay_feedback": 0.5},
}
SIMULATED = {"cluster": "simulated", "workers": 3, "profile": "uneven", "exponential_smoothing": 0.01}


def checkpoint(run: Path) -> Path:
    return run / (run / "last").read_text().strip()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_resumed_and_replayed_bit_for_bit(
    small_data: Path, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SIMULATED, **WAYS[way], "quantize_bits": 4, "save_freq": "4", "valid_freq": "3"}
    run_small(small_data, tmp_path / "whole", stop_after="8", **settings)
    with pytest.raises(Interrupted):
        run_small(small_data, tmp_path / "halves", {5: interrupt}, stop_after="8", **settings)
    run_small(small_data, tmp_path / "halves", stop_after="8", **settings)
    assert_same_state(tmp_path / "whole", tmp_path / "halves")
    for until in ((), ("--until", "6")):  # a state, and a best model
        if until and not (tmp_path / "whole" / "checkpoints" / "best-6").is_dir():
            continue
        assert run_command(["replay", str(tmp_path / "whole"), *until]) == 0, capsys.readouterr()


def test_real_workers_compute_on_what_a_replay_computes_on(small_data: Path, tmp_path: Path) -> None:
    settings = {"workers": 2, "sync_mode": "async", "quantize_bits": 3, "stop_after": "6", "save_freq": "6"}
    run_small(small_data, tmp_path / "run", **settings)
    assert torch.equal(saved_state(tmp_path / "run")["parameters"], replayed(tmp_path / "run", small_data))


@pytest.mark.parametrize(("bits", "scheme", "biases"), [(4, "log", False), (2, "linear", False), (3, "log", True)])
def test_what_a_run_writes_is_the_quantised_model(
    small_data: Path, tmp_path: Path, bits: int, scheme: str, biases: bool
) -> None:
    settings = {"quantize_bits": bits, "quantize_scheme": scheme, "quantize_biases": biases}
    run_small(small_data, tmp_path / "run", stop_after="6", valid_freq="3", save_freq="3", **SIMULATED, **settings)
    state = saved_state(tmp_path / "run")
    quantization = Quantization(bits, scheme, biases)
    for folder in (checkpoint(tmp_path / "run"), tmp_path / "run" / (tmp_path / "run" / "best").read_text().strip()):
        loaded = load_model(folder)
        assert loaded.quantization == quantization
        layout = FlatLayout(loaded.model)
        found, again = layout.gather(loaded.model), torch.empty(layout.size)
        quantise_vector(found, layout, quantization, again)
        assert torch.equal(found, again)
    last = load_model(checkpoint(tmp_path / "run"))
    expected = state["average"].clone()
    quantise_vector(expected, layout, quantization, expected)
    assert torch.equal(layout.gather(last.model), expected)
    assert not torch.equal(expected, state["average"])
    assert Translator(tmp_path / "run", device="cpu").translate(["a dog"], max_length_factor=1.0)


def test_it_makes_the_quantised_model_better(small_data: Path, tmp_path: Path) -> None:
    """Quantised to 2 bits and trained further for as many updates, with and without quantising meanwhile."""
    common = {**SIMULATED, "sync_mode": "sync", "save_freq": "1M", "valid_freq": "1M", "exponential_smoothing": 0.0}
    run_small(small_data, tmp_path / "full", stop_after="60", **{**common, "learn_rate": 0.005})
    further = {**common, "init_from": tmp_path / "full", "learn_rate": 0.002, "stop_after": "60"}
    run_small(small_data, tmp_path / "further", **further)
    run_small(small_data, tmp_path / "retrained", **further, quantize_bits=2)
    assert run_command(["quantize", str(tmp_path / "further"), str(tmp_path / "after"), "--bits", "2", "--quiet"]) == 0

    def entropy(model: Path) -> float:
        data = PreparedData.open(small_data)
        assert data.valid is not None
        return float(sentence_losses(load_model(model).model, data.valid).sum())

    assert entropy(tmp_path / "retrained") < entropy(tmp_path / "after")


def test_a_quantised_model_is_where_training_may_begin(small_data: Path, tmp_path: Path) -> None:
    settings = {**SIMULATED, "stop_after": "2", "save_freq": "2"}
    run_small(small_data, tmp_path / "run", **settings, quantize_bits=4)
    run_small(small_data, tmp_path / "further", **settings, init_from=tmp_path / "run")
    assert load_model(tmp_path / "further").quantization is None
    assert "source_embedding.weight" not in load_file(checkpoint(tmp_path / "further") / "model.safetensors")


def test_options_mean_something_with_bits_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["train", str(tmp_path), "--quantize-scheme", "linear"]) == 2
    assert "--quantize-scheme means nothing without --quantize-bits" in capsys.readouterr().err
    assert run_command(["train", str(tmp_path), "--quantize-bits", "16"]) == 2
    assert "--quantize-bits: '16' is no number of bits" in capsys.readouterr().err


def test_a_resume_keeps_the_bits(small_data: Path, tmp_path: Path) -> None:
    settings = {**SIMULATED, "save_freq": "2"}
    run_small(small_data, tmp_path / "run", **settings, stop_after="2", quantize_bits=4)
    with pytest.raises(UserError, match="--quantize-bits"):
        run_small(small_data, tmp_path / "run", **settings, stop_after="4", quantize_bits=3)


@pytest.mark.parametrize(
    "between",
    [{"between": "sync"}, {"between": "lagged", "sync_mode": "hybrid"}, {"between": "local", "local_updates": 2}],
    ids=["sync", "lagged", "local"],
)
def test_machines_that_share_a_run_quantise_the_same(
    small_data: Path, tmp_path: Path, between: dict[str, Any], port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run_both(small_data, run, port, stop_after="8", quantize_bits=4, **between)
    assert run_command(["replay", str(run)]) == 0, capsys.readouterr()
    state, quantization = saved_state(run), Quantization(4, "log", False)
    last = load_model(checkpoint(run))
    layout = FlatLayout(last.model)
    expected = state.get("average", state["parameters"]).clone()
    quantise_vector(expected, layout, quantization, expected)
    assert last.quantization == quantization
    assert torch.equal(layout.gather(last.model), expected)
