"""``nmt-async average`` as a user types it."""

from __future__ import annotations

import json

import pytest
import torch
from nmt_async.cli.main import run
from small_model import save_small_model

from nmt_async.checkpoints.model_folder import load_model


@pytest.fixture
def checkpoints(real_run):
    return sorted((real_run / "checkpoints").glob("step-*"))


def parameters(folder):
    return load_model(folder).model.state_dict()


def test_the_last_checkpoints_become_a_model_that_every_command_accepts(real_run, checkpoints, tmp_path, capsys):
    assert run(["average", str(real_run), "--last", "2", "--out", str(tmp_path / "mean")]) == 0
    assert len(checkpoints) == 2
    said = capsys.readouterr().out.splitlines()
    assert said == [*(f"averaged {folder}" for folder in checkpoints), f"{tmp_path / 'mean'} holds their mean."]
    both = [parameters(folder) for folder in checkpoints]
    for name, mean in parameters(tmp_path / "mean").items():
        assert torch.allclose(mean, (both[0][name] + both[1][name]) / 2, atol=1e-7)
    (tmp_path / "text").write_text("a dog\n")
    text = str(tmp_path / "text")
    assert run(["translate", str(tmp_path / "mean"), "-i", text]) == 0
    assert run(["score", str(tmp_path / "mean"), "--source", text, "--target", text]) == 0
    assert run(["evaluate", str(tmp_path / "mean"), "--source", text, "--reference", text, "--bootstrap", "0"]) == 0
    assert run(["average", str(tmp_path / "mean"), str(real_run), "--out", str(tmp_path / "again")]) == 0


def test_the_best_are_those_of_the_lowest_cross_entropy(real_run, tmp_path, capsys):
    records = map(json.loads, (real_run / "metrics.jsonl").read_text().splitlines())
    entropies = {record["update"]: record["cross_entropy"] for record in records if record["kind"] == "valid"}
    assert run(["average", str(real_run), "--best", "1", "--out", str(tmp_path / "best")]) == 0
    best = min(entropies, key=entropies.__getitem__)
    assert capsys.readouterr().out.splitlines()[0].endswith(f"-{best}")


def test_given_checkpoints_are_averaged(checkpoints, tmp_path):
    folders = [str(folder) for folder in checkpoints]
    assert run(["average", *folders, "--out", str(tmp_path / "mean"), "--quiet"]) == 0
    assert run(["average", folders[0], folders[0], "--out", str(tmp_path / "same"), "--quiet"]) == 0
    first = parameters(checkpoints[0])
    assert all(torch.equal(tensor, first[name]) for name, tensor in parameters(tmp_path / "same").items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "average needs --out DIR"),
        (["{run}", "--out", "{new}"], "for one run, say which checkpoints to average: --last N or --best N"),
        (["{run}", "--last", "9", "--out", "{new}"], "has 2 checkpoints, not 9"),
        (["{run}", "--last", "0", "--out", "{new}"], "--last: 0 is too few"),
        (["{run}", "--last", "1", "--best", "1", "--out", "{new}"], "--last means nothing with --best; leave it out."),
        (["{run}", "--last", "1", "--metric", "bleu", "--out", "{new}"], "--metric means nothing without --best"),
        (["{run}", "--best", "1", "--metric", "bleu", "--out", "{new}"], "has no validation with bleu"),
        (["{run}", "{run}", "--last", "1", "--out", "{new}"], "choose from one run"),
        (["{run}", "--last", "1", "--out", "{run}"], "is a folder that is not empty"),
        (["{run}", "{new}", "--out", "{new}"], "new does not exist"),
        (["{absent}", "--last", "1", "--out", "{new}"], "is not the folder of a run that has saved a checkpoint"),
    ],
)
def test_a_mistake_is_one_sentence(real_run, tmp_path, capsys, arguments, message):
    names = {"run": str(real_run), "new": str(tmp_path / "new"), "absent": str(tmp_path / "absent")}
    assert run(["average", *(argument.format(**names) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_models_of_different_runs_are_refused(real_run, tmp_path, capsys):
    small = str(save_small_model(tmp_path))
    assert run(["average", str(real_run), small, "--out", str(tmp_path / "new")]) == 2
    assert "only models of the same configuration can be averaged" in capsys.readouterr().err
