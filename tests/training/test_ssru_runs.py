"""Runs whose decoder has SSRUs: every way of updating, and every command on what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nmt_async.cli.main import run as command
from training_runs import replayed, run_small, saved_state, typed

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.reading import read_json_lines

SSRU: dict[str, Any] = {"decoder_autoreg": "ssru", "dec_depth": 2, "learn_rate": 0.01, "lr_warmup": "5"}
MODES: dict[str, dict[str, Any]] = {
    "sync": {"sync_mode": "sync", "accumulate": 2},
    "async": {"sync_mode": "async"},
    "hybrid": {"sync_mode": "hybrid", "accumulate": 3},
}


def vector_of(folder: Path) -> torch.Tensor:
    model = load_model(folder).model
    return FlatLayout(model).gather(model)


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_in_every_mode_and_replays(small_data: Path, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "run"
    assert run_small(small_data, out, stop_after="16", valid_freq="4", **SSRU, **MODES[mode]).warnings == []
    found = [line["cross_entropy"] for line in read_json_lines(out / "metrics.jsonl") if line["kind"] == "valid"]
    assert found[-1] < found[0]
    assert torch.equal(replayed(out, small_data), saved_state(out)["parameters"])


@pytest.fixture(scope="module")
def begun(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    run_small(
        small_data, folder, cluster="simulated", workers=1, stop_after="60", save_freq="30", keep_last=2, **SSRU,
    )  # fmt: skip
    return folder


def test_its_checkpoints_are_averaged_and_the_mean_translates(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean, source, checkpoints = tmp_path / "mean", tmp_path / "source", sorted((begun / "checkpoints").glob("step-*"))
    assert command(["average", *map(str, checkpoints), "--out", str(mean)]) == 0
    assert load_model(mean).configuration == load_model(begun).configuration
    first, second, both = (vector_of(folder) for folder in (*checkpoints, mean))
    torch.testing.assert_close(both, (first + second) / 2)
    source.write_text("The dog sleeps.\nA cat sees the old house.\n")
    capsys.readouterr()
    for precision in ("float32", "int8"):
        assert command(["translate", str(mean), "-i", str(source), "--precision", precision]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2


def test_dry_run_counts_its_parameters(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for autoreg in ("self-attention", "ssru"):
        words = typed(tmp_path / "run", decoder_autoreg=autoreg, dec_depth=2)
        assert command(["train", str(small_data), *words, "--dry-run"]) == 0
        said[autoreg] = capsys.readouterr().out
        assert f'"decoder_autoreg": "{autoreg}"' in said[autoreg]
    counts = [int(text.split(" parameters")[0].rpartition(" ")[2].replace(",", "")) for text in said.values()]
    assert counts[0] - counts[1] == 2 * (2 * 16 * 16 + 3 * 16)


def test_a_run_that_begins_with_its_model_has_ssrus_too(begun: Path, small_data: Path, tmp_path: Path) -> None:
    unsaid = dict.fromkeys(("dim_emb", "heads", "dim_ffn", "enc_depth", "dec_depth"))
    run_small(
        small_data, tmp_path / "run", init_from=begun, cluster="simulated", workers=1, learn_rate=1e-30,
        stop_after="1", **unsaid,
    )  # fmt: skip
    before, after = load_model(begun), load_model(tmp_path / "run")
    assert after.configuration == before.configuration
    assert torch.equal(vector_of(begun), vector_of(tmp_path / "run"))
