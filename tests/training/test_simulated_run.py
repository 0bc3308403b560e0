"""A run on the simulated cluster: the same files, a virtual clock, and a resume that changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nmt_async.display.recorded_run import recorded_state
from nmt_async.errors import UserError
from tests.training_runs import replayed, run_small

SIMULATED = {
    "cluster": "simulated", "workers": 3, "profile": "uneven", "stop_after": "24", "save_freq": "5", "valid_freq": "8",
    "disp_freq": "4", "exponential_smoothing": 0.05, "cpu_threads": 1,
}  # fmt: skip


def lines(path: Path) -> list[dict]:
    values = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "seconds" or line["kind"] == "train"} for line in values
    ]


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / (run / "last").read_text().strip() / "state.safetensors")


def test_what_it_says_of_itself_is_that_it_is_simulated(small_data: Path, tmp_path: Path) -> None:
    said = run_small(small_data, tmp_path / "run", **SIMULATED).said
    assert "run: hybrid, 3 pushes an update | 3 workers on a simulated cluster (uneven)" in said
    assert recorded_state(tmp_path / "run").title.workers() == "3 workers on a simulated cluster (uneven)"


def test_saving_and_validating_cost_no_virtual_time(small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", **SIMULATED)
    stalls = [line["stall_seconds"] for line in lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert stalls == [0.0] * 6


def test_seconds_are_those_of_the_profile(small_data: Path, tmp_path: Path) -> None:
    speeds = {}
    for name, speed in (("slow", 10), ("fast", 1000)):
        profile = tmp_path / f"{name}.yaml"
        profile.write_text(f"workers: [{{count: 2, tokens-per-second: {speed}}}]\n")
        run_small(
            small_data, tmp_path / name, **{**SIMULATED, "workers": 2, "profile": str(profile)}, sync_mode="async"
        )
        speeds[name] = [line for line in lines(tmp_path / name / "metrics.jsonl") if line["kind"] == "train"]
    last = speeds["slow"][-1]
    assert last["target_tokens_per_second"] == pytest.approx(20, rel=0.1)
    assert speeds["fast"][-1]["time"] == pytest.approx(last["time"] / 100)


def test_an_update_takes_the_seconds_that_the_profile_says(small_data: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("server: {seconds-per-update: 0.25}\nworkers: [{count: 3, tokens-per-second: 1000}]\n")
    run_small(small_data, tmp_path / "run", **{**SIMULATED, "profile": str(profile)}, optimizer="adam")
    reported = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["update_seconds"] for line in reported] == [0.25] * 6


def test_each_sentences_loss_is_kept(small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", **SIMULATED)
    valid = [line for line in lines(tmp_path / "run/metrics.jsonl") if line["kind"] == "valid"]
    kept = lines(tmp_path / "run/validation.jsonl")
    assert [line["update"] for line in kept] == [line["update"] for line in valid] == [8, 16, 24]
    tokens = kept[0]["tokens"]
    assert len(tokens) == len(kept[0]["losses"]) == 24
    for line, scores in zip(kept, valid, strict=True):
        assert sum(line["losses"]) / sum(tokens) == pytest.approx(scores["cross_entropy"], rel=1e-4)


def test_the_journal_of_a_simulated_run_replays(small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", **SIMULATED, sync_mode="async", local_accumulate=2)
    parameters = replayed(tmp_path / "run", small_data)
    assert torch.equal(parameters, state_of(tmp_path / "run")["parameters"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "paper"}, "--profile means nothing with --cluster processes"),
        ({"cluster": "simulated", "profile": "fast"}, "neither a file nor one of paper, uneven"),
        ({"cluster": "simulated", "local_accumulate": 0}, "--local-accumulate: 0 is too small"),
    ],
)
def test_options_that_do_not_fit_are_refused(small_data: Path, tmp_path: Path, options, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_small(small_data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
