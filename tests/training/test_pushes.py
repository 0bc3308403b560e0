"""Runs whose pushes are not whole float32 gradients: they go through deaths, pauses and replays as others do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import assert_same_state, events_of, kill_child, replayed, run_small, saved_state, small_options

from nmt_async.errors import UserError
from nmt_async.options import check_together
from nmt_async.progress import SilentProgress
from nmt_async.reading import read_json_lines
from nmt_async.study.collect import collect
from nmt_async.sync.compression.settings import LocalGradients
from nmt_async.sync.journal import Kind
from nmt_async.training.replay.command import replay

PUSHES: dict[str, dict[str, Any]] = {
    "bfloat16": {"push_dtype": "bfloat16"},
    "largest": {"drop_gradients": 0.99},
    "largest of each matrix, in bfloat16": {
        "drop_gradients": 0.9,
        "push_dtype": "bfloat16",
        "drop_threshold": "matrix",
    },
    "largest, with local gradients": {"drop_gradients": 0.99, "local_gradients": True},
    "with a local optimizer": {"local_accumulate": 2, "local_optimizer": "sgd", "push_dtype": "bfloat16"},
    "all at once": {
        "local_accumulate": 2,
        "local_optimizer": "adam",
        "drop_gradients": 0.95,
        "local_gradients": True,
        "push_dtype": "bfloat16",
    },
}


def residuals_of(run: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in saved_state(run).items() if name.startswith("residual.")}


@pytest.mark.parametrize("push", PUSHES)
def test_a_run_with_deaths_and_pauses_replays_bit_equal(small_data: Path, tmp_path: Path, push: str) -> None:
    run, options = tmp_path / "run", {"sync_mode": "hybrid", "accumulate": 3, **PUSHES[push]}
    deaths = {2: lambda: kill_child("worker 0"), 4: lambda: kill_child("worker 1")}
    run_small(small_data, run, deaths, **options, stop_after="6")
    run_small(small_data, run, **options, workers=3, stop_after="9")
    witness = run_small(small_data, run, **options, workers=1, stop_after="12")
    left = residuals_of(run)
    assert list(left) == ["residual.0"]
    norm = float(torch.linalg.vector_norm(left["residual.0"]))
    assert norm > 0
    assert f"what the pushes left behind is not applied: its norm is {norm:.4g}, " in witness.said
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])


@pytest.mark.parametrize("push", PUSHES)
def test_one_worker_and_virtual_ones_go_on_bit_equal(small_data: Path, tmp_path: Path, push: str) -> None:
    for name, options in {
        "alone": {"workers": 1, "sync_mode": "hybrid", "accumulate": 2},
        "virtual": {"workers": 3, "sync_mode": "async", "cluster": "simulated", "profile": "uneven"},
    }.items():
        options = {**options, **PUSHES[push]}
        straight, changed = tmp_path / f"{name}-straight", tmp_path / f"{name}-changed"
        run_small(small_data, straight, **options, stop_after="9")
        run_small(small_data, changed, **options, stop_after="4")
        run_small(small_data, changed, **options, stop_after="9")
        if name == "alone":
            assert_same_state(straight, changed)
        assert torch.equal(replayed(changed, small_data), saved_state(changed)["parameters"])


RESTARTING = {"sync_mode": "async", "oldest_push": 0, "older_pushes": "restart"}
"""Each push that counts makes all other workers leave what they are at."""


@pytest.mark.parametrize("push", PUSHES)
def test_what_a_worker_leaves_does_not_touch_what_its_pushes_left_behind(
    small_data: Path, tmp_path: Path, push: str
) -> None:
    run, options = tmp_path / "run", {**RESTARTING, **PUSHES[push], "save_freq": "4", "stop_after": "10"}
    run_small(small_data, run, {4: lambda: kill_child("worker 1")}, **options)
    run_small(small_data, run, **{**options, "stop_after": "20"})
    kinds = Counter(event.kind for event in events_of(run))
    assert kinds[Kind.RESTARTED] > 0
    assert kinds[Kind.RESUMED] == 1
    found = replay(run, None, None, SilentProgress())
    assert found.different == {}
    assert {"residual.0", "residual.1"} <= set(found.compared)


def test_the_bytes_of_each_push_are_counted(small_data: Path, tmp_path: Path) -> None:
    """Whole: four bytes a number. Some numbers: six each with their places, in bfloat16."""
    pushed, run = {}, {}
    for name, push in {"whole": {}, **dict(list(PUSHES.items())[:3])}.items():
        run[name] = tmp_path / name
        options = {"workers": 1, "sync_mode": "hybrid", "accumulate": 2, "disp_freq": "2", **push}
        witness = run_small(small_data, run[name], **options, stop_after="3")
        run_small(small_data, run[name], **options, stop_after="6")
        reports = [line for line in read_json_lines(run[name] / "metrics.jsonl") if line["kind"] == "train"]
        pushes = sum(sum(line["staleness"].values()) for line in reports)
        assert pushes == 12
        pushed[name] = sum(line["pushed_bytes"] for line in reports)
        result = collect(run[name])
        assert (result.pushed_bytes, result.bytes_per_push) == (pushed[name], pushed[name] / 12)
        said = f"pushes brought {sum(line['pushed_bytes'] for line in reports[:2]) / 2**20:,.1f} MiB to the server."
        assert (said in witness.said) == (name != "whole")
    size = saved_state(run["whole"])["parameters"].numel()
    assert pushed["whole"] == 12 * 4 * size
    assert pushed["bfloat16"] == 12 * 2 * size
    assert pushed["largest"] % 8 == 0
    assert 0.005 < pushed["largest"] / (12 * 8 * size) <= 0.0201
    assert pushed["largest of each matrix, in bfloat16"] % 6 == 0
    assert 0.05 < pushed["largest of each matrix, in bfloat16"] / (12 * 6 * size) <= 0.201


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be_dropped_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match=f"--drop-gradients: {share} is not from 0 to below 1"):
        small_options(tmp_path, drop_gradients=share)


@pytest.mark.parametrize(("typed", "said"), [
    ({"drop_threshold": "matrix"}, "--drop-threshold means nothing without --drop-gradients"),
    ({"local_gradients": True, "push_dtype": "bfloat16"}, "--local-gradients means nothing without --drop-gradients"),
    ({"local_optimizer": "sgd"}, "--local-optimizer means nothing with --local-accumulate 1"),
])  # fmt: skip
def test_what_would_do_nothing_is_refused(tmp_path: Path, typed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_together(small_options(tmp_path, **typed))


def test_what_a_worker_does_on_its_own_follows_the_servers_optimizer_and_rule(tmp_path: Path) -> None:
    local = {"drop_gradients": 0.9, "local_gradients": True, "sync_mode": "hybrid", "accumulate": 5}
    made = small_options(tmp_path, **local, optimizer="sgd", momentum=0.75).push_settings()
    assert made.local_gradients == LocalGradients(5, 4.0)
    growing = {**local, "sync_mode": "adaptive", "accumulate_first": 2, "workers": 5}
    assert small_options(tmp_path, **growing).push_settings().local_gradients == LocalGradients(5)
    made = small_options(tmp_path, **local, optimizer="muon", local_accumulate=2, local_optimizer="adam",
                         adam_beta2=0.9, weight_decay=0.1).push_settings()  # fmt: skip
    assert made.local_gradients == LocalGradients(5)
    assert made.local_optimizer is not None
    assert (made.local_optimizer.name, made.local_optimizer.beta2) == ("adam", 0.9)
    assert (made.local_optimizer.weight_decay, made.local_optimizer.smoothing) == (0.0, 0.0)
