"""Workers and the validation process fail in every way; the run goes on, or stops with the cause named."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import children_named, events_of, kill_child, prepare_small, run_small, saved_state, small_options

from nmt_async.errors import Diverged, RunFailure
from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import Kind
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.parts import training_plan
from nmt_async.training.run_folder import read_outcome

ONE = {"workers": 1, "accumulate": 1}


def spoil(data: Path, sentences: list[int]) -> None:
    """Gives target sentences a subword that no vocabulary has, as a failing disk might."""
    store = PreparedData.open(data).train.target
    offsets = np.concatenate([[0], np.cumsum(store.lengths)])
    tokens = np.fromfile(data / "train.target.tokens", "<u2")
    tokens[offsets[sentences]] = 60_000
    tokens.tofile(data / "train.target.tokens")


def test_a_batch_at_which_workers_die_is_set_aside_by_name(tmp_path: Path) -> None:
    data = prepare_small(tmp_path)
    plan = training_plan(small_options(tmp_path), PreparedData.open(data))
    sentences = plan.sentences(BatchId(1, 4))
    spoil(data, [int(sentences[0])])
    witness = run_small(data, tmp_path / "run", **ONE, stop_after="8")
    deaths = [warning for warning in witness.warnings if "a new one takes its place" in warning]
    assert len(deaths) == 3
    assert all(re.match(r"worker 0 died at batch 4 of epoch 1 \(IndexError: .+\);", death) for death in deaths)
    (aside,) = [warning for warning in witness.warnings if "is set aside after 3 tries" in warning]
    assert f"sentence pairs {sentences[0] + 1}, {sentences[1] + 1}, " in aside
    assert [event.batch for event in events_of(tmp_path / "run") if event.kind is Kind.SET_ASIDE] == [(1, 4)]
    assert read_json_lines(tmp_path / "run" / "metrics.jsonl")[0]["set_aside"] == 1
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()


def test_an_exception_at_every_batch_stops_the_run_with_its_text(tmp_path: Path) -> None:
    data = prepare_small(tmp_path)
    spoil(data, list(range(600)))
    with pytest.raises(RunFailure) as failed:
        run_small(data, tmp_path / "run", **ONE, stop_after="9")
    assert re.search(
        r"worker 0 died 5 times in a row, the last time at batch 1 of epoch 1: IndexError", str(failed.value)
    )
    assert str(failed.value).endswith("Nothing is saved.")
    assert not isinstance(failed.value, Diverged)
    assert read_outcome(tmp_path / "run") == ("failed", str(failed.value))
    assert children_named("worker") == []


def test_workers_that_are_killed_again_and_again_stop_the_run_saved(small_data: Path, tmp_path: Path) -> None:
    enough = threading.Event()

    def kill_all() -> None:
        while not enough.wait(0.02):
            for child in children_named("worker"):
                child.kill()

    killer = threading.Thread(target=kill_all)
    try:
        with pytest.raises(RunFailure) as failed:
            run_small(small_data, tmp_path / "run", {3: killer.start}, stop_after="1k")
    finally:
        enough.set()
        killer.join(timeout=10)
    assert re.search(r"worker \d died 5 times in a row, the last time .*: killed by signal 9", str(failed.value))
    saved = re.search(r"The run is saved at update (\d+)\.", str(failed.value))
    assert saved is not None
    assert (tmp_path / "run" / "last").read_text().strip() == f"checkpoints/step-{saved[1]}"


def test_a_killed_validation_costs_that_validation_only(small_data: Path, tmp_path: Path) -> None:
    acts = {5: lambda: kill_child("validation")}
    witness = run_small(small_data, tmp_path / "run", acts, **ONE, valid_freq="4", stop_after="8")
    assert "the validation of update 4 failed (its process was killed; out of memory?)" in "\n".join(witness.warnings)
    validations = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "valid"]
    assert [line["update"] for line in validations] == [8]


def test_data_that_vanishes_costs_what_is_not_in_memory_yet(tmp_path: Path) -> None:
    data = prepare_small(tmp_path)
    witness = run_small(data, tmp_path / "run", {2: lambda: shutil.rmtree(data)}, **ONE, valid_freq="4", stop_after="8")
    assert all(re.match(r"the validation of update \d failed \(UserError: there is no folder", warning)
               for warning in witness.warnings)  # fmt: skip
    assert witness.warnings
    assert (tmp_path / "run" / "last").read_text() == "checkpoints/step-8\n"


def test_an_absurd_learning_rate_stops_the_run_and_leaves_the_last_good_checkpoint(
    small_data: Path, tmp_path: Path
) -> None:
    settings = {**ONE, "lr_warmup": "0", "lr_decay": "none", "learn_rate": 1e30, "save_freq": "1", "stop_after": "9"}
    with pytest.raises(Diverged) as failed:
        run_small(small_data, tmp_path / "run", **settings)
    assert failed.value.exit_code == 3
    assert read_outcome(tmp_path / "run") == ("diverged", str(failed.value))
    assert "its gradient is not finite" in str(failed.value)
    assert str(failed.value).endswith("is the last good checkpoint.")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved_state(tmp_path / "run").values())
    events = events_of(tmp_path / "run")
    assert [event.batch for event in events if event.kind is Kind.SET_ASIDE] == [(1, 1), (1, 2)]
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
