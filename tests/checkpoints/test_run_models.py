from __future__ import annotations

import json

import pytest

from nmt_async.checkpoints.run_models import best_models, last_models, models_of
from nmt_async.errors import UserError

VALIDATIONS = [
    {"kind": "valid", "update": 10, "cross_entropy": 3.0, "bleu": 30.0, "chrf": None, "metric": "bleu"},
    {"kind": "train", "update": 15, "loss": 1.0},
    {"kind": "valid", "update": 20, "cross_entropy": 1.0, "bleu": 10.0, "chrf": None, "metric": "bleu"},
    {"kind": "valid", "update": 30, "cross_entropy": None, "bleu": None, "chrf": None, "metric": "bleu"},
    {"kind": "valid", "update": 40, "cross_entropy": 2.0, "bleu": 20.0, "chrf": None, "metric": "bleu"},
    {"kind": "valid", "update": 50, "cross_entropy": 0.5, "bleu": 50.0, "chrf": None, "metric": "bleu"},
    {"kind": "valid", "update": 40, "cross_entropy": 2.0, "bleu": 40.0, "chrf": None, "metric": "bleu"},
]


@pytest.fixture
def run(tmp_path):
    """A run's folder as far as the choice looks at it; of update 50 no model was kept."""
    for name in ("step-20", "step-30", "step-40", "best-10", "best-40"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "model.json").write_text("{}")
    (tmp_path / "checkpoints" / "step-60.partial").mkdir()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in VALIDATIONS))
    return tmp_path


def names(folders):
    return [folder.name for folder in folders]


def test_each_update_has_one_model(run):
    assert {update: folder.name for update, folder in models_of(run).items()} == {
        10: "best-10", 20: "step-20", 30: "step-30", 40: "step-40",
    }  # fmt: skip


def test_the_last_are_the_newest_checkpoints(run):
    assert names(last_models(run, 2)) == ["step-30", "step-40"]
    with pytest.raises(UserError, match="has 3 checkpoints, not 4; ask for fewer, or train with a higher --keep-last"):
        last_models(run, 4)


def test_the_best_are_those_that_validation_found_best_the_latest_time(run):
    assert names(best_models(run, 2, None)) == ["step-40", "best-10"]
    assert names(best_models(run, 3, "cross-entropy")) == ["step-20", "step-40", "best-10"]
    with pytest.raises(UserError, match="has 3 validated models, not 4; ask for fewer"):
        best_models(run, 4, None)


def test_what_was_not_measured_cannot_choose(run):
    with pytest.raises(
        UserError, match=r"metrics\.jsonl has no validation with chrf; give another --metric, or --last"
    ):
        best_models(run, 1, "chrf")
    (run / "metrics.jsonl").write_text("not JSON\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        best_models(run, 1, None)


def test_a_line_that_the_run_is_just_writing_disturbs_nobody(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "valid", "upd')
    assert names(best_models(run, 2, None)) == ["step-40", "best-10"]


def test_a_folder_without_checkpoints_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a run that has saved a checkpoint"):
        last_models(tmp_path, 1)
