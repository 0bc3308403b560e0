"""A recurrent model by the installed command: trained by two workers, replayed, translated with."""

from __future__ import annotations

from pathlib import Path

import commands
import pytest
import torch
import yaml
from nmt_async.cli.main import run
from training_runs import replayed

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.recurrent import RecurrentModel
from nmt_async.reading import read_json_lines

WORDS = [
    "--type", "s2s", "--preset", "tiny", "--dim-emb", "16", "--dim-rnn", "24", "--mini-batch-words", "300",
    "--lr-warmup", "5", "--workers", "2", "--cpu-threads", "1", "--valid-freq", "4", "--valid-sentences", "4",
    "--learn-rate", "0.01",
]  # fmt: skip


def typed(*words: object, text: str = "") -> str:
    """Standard output of the command, which must succeed without a word on standard error."""
    done = commands.run(words, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_two_workers_train_a_model_that_translates(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    typed("train", small_data, "--out", out, *WORDS, "--quiet", "--stop-after", "12")
    assert yaml.safe_load((out / "config.yaml").read_text())["model"] == "rnn"

    validations = [line for line in read_json_lines(out / "metrics.jsonl") if line["kind"] == "valid"]
    assert validations[-1]["update"] == 12
    assert validations[-1]["cross_entropy"] < validations[0]["cross_entropy"]
    last = load_model(out / (out / "last").read_text().strip())
    assert isinstance(last.model, RecurrentModel)
    assert torch.equal(FlatLayout(last.model).gather(last.model), replayed(out, small_data))

    translate = ("translate", out, "--threads", "1")
    assert typed(*translate, "--beam-size", "3", text="The dog sleeps.\n\nA cat.\n").count("\n") == 3


def test_dry_run_shows_the_sizes_that_the_model_has(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(small_data), "--out", str(tmp_path / "run"), *WORDS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert '{"model": "rnn", ' in said
    assert '"dim_rnn": 24' in said
    assert "heads" not in said
