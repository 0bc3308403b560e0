"""Runs with each optimizer: killed and resumed bit-equal, replayed, and begun before there was a choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nmt_async.cli.main import run as command
from training_runs import assert_same_state, replayed, run_small, saved_state, typed

from nmt_async.errors import UserError
from nmt_async.sync.optimizers.settings import OPTIMIZERS
from nmt_async.training import optimizer_options
from nmt_async.training.run_folder import read_options

SIMULATED: dict[str, Any] = {
    "cluster": "simulated", "workers": 3, "profile": "uneven", "accumulate": 3, "save_freq": "5", "disp_freq": "4",
}  # fmt: skip
CHOICES = [
    *({"optimizer": name} for name in OPTIMIZERS),
    {"optimizer": "muon", "muon_rows": 8, "weight_decay": 0.1, "exponential_smoothing": 0.05},
    {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.5},
]  # fmt: skip


class Crash(Exception):
    """As if the process had been killed: nothing is saved."""


def crash() -> None:
    raise Crash


def called(choice: dict[str, Any]) -> str:
    return " ".join(map(str, choice.values()))


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_a_run_that_was_killed_goes_on_bit_equal(small_data: Path, tmp_path: Path, choice: dict[str, Any]) -> None:
    settings = {**SIMULATED, **choice, "stop_after": "12"}
    run_small(small_data, tmp_path / "straight", **settings)
    with pytest.raises(Crash):
        run_small(small_data, tmp_path / "killed", {8: crash}, **settings)
    run_small(small_data, tmp_path / "killed", **settings)
    assert_same_state(tmp_path / "straight", tmp_path / "killed")
    assert torch.equal(replayed(tmp_path / "killed", small_data), saved_state(tmp_path / "killed")["parameters"])


@pytest.mark.parametrize("choice", CHOICES, ids=called)
def test_a_run_of_processes_replays(small_data: Path, tmp_path: Path, choice: dict[str, Any]) -> None:
    run_small(small_data, tmp_path / "run", **choice, accumulate=3, stop_after="6")
    words = ["replay", str(tmp_path / "run")]
    assert command(words) == 0


def test_each_leads_elsewhere(small_data: Path, tmp_path: Path) -> None:
    found = []
    for choice in CHOICES:
        run_small(small_data, tmp_path / called(choice), **SIMULATED, **choice, stop_after="3")
        found.append(saved_state(tmp_path / called(choice))["parameters"])
    for number, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:number])


def test_a_run_goes_on_with_its_optimizer_where_nobody_names_one(small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", **SIMULATED, optimizer="lion", stop_after="2")
    run_small(small_data, tmp_path / "run", **SIMULATED, stop_after="3")
    assert read_options(tmp_path / "run").optimizer == "lion"
    with pytest.raises(UserError, match="begun with --optimizer lion, now it is adam; give the same"):
        run_small(small_data, tmp_path / "run", **SIMULATED, optimizer="adam", stop_after="4")


def test_a_run_from_before_there_was_a_choice_goes_on_as_adam_without_prediction(
    small_data: Path, tmp_path: Path
) -> None:
    settings = {**SIMULATED, "save_freq": "2", "stop_after": "6"}
    then = {**settings, "optimizer": "adam", "weight_prediction": "none"}
    run_small(small_data, tmp_path / "straight", **then)
    with pytest.raises(Crash):
        run_small(small_data, tmp_path / "run", {3: crash}, **then)
    config = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    newer = [name for name in values if name.replace("-", "_") in optimizer_options.StepOptions.__annotations__]
    old = [name for name in newer if not name.startswith("adam-")]
    old.append("weight-prediction")
    assert (values["optimizer"], values["weight-prediction"]) == ("adam", "none")
    config.write_text(yaml.safe_dump({name: value for name, value in values.items() if name not in old}))
    run_small(small_data, tmp_path / "run", **settings)
    assert read_options(tmp_path / "run").optimizer == "adam"
    assert read_options(tmp_path / "run").weight_prediction == "none"
    assert_same_state(tmp_path / "straight", tmp_path / "run")


@pytest.mark.parametrize(("changes", "said"), [
    ({"optimizer": "adam", "muon_rows": 8}, "--muon-rows means nothing with --optimizer adam; leave it out, or give "
     "--optimizer muon."),
    ({"optimizer": "lion", "adam_beta1": 0.8}, "--adam-beta1 means nothing with --optimizer lion; leave it out, or "
     "give --optimizer adam or adamw or muon."),
    ({"optimizer": "muon", "muon_steps": 100}, "--muon-steps: 100 is not a number from 1 to 99."),
    ({"optimizer": "muon", "muon_rows": -1}, "--muon-rows: -1 is not a number from 0 to 1,000,000."),
    ({"optimizer": "adamw", "weight_decay": -0.5}, "--weight-decay: -0.5 is not a number from 0 on."),
    ({"optimizer": "sgd", "momentum": 1.0}, "--momentum: 1.0 is not from 0 to below 1."),
])  # fmt: skip
def test_what_means_nothing_or_cannot_be_is_refused(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert command(["train", str(small_data), *typed(tmp_path / "run", **changes)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
