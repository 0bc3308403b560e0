"""Whole runs: where they stop, how they go on, what they write down."""

from __future__ import annotations

import gc
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nmt_async.cli.main import run as run_command
from safetensors.torch import load_file
from training_runs import (
    SIZES,
    assert_each_batch_counted,
    assert_same_state,
    events_of,
    replayed,
    run_small,
    saved_state,
)

import nmt_async
from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import Diverged, RunFailure, UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.quantity import Quantity
from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import Kind
from nmt_async.training.parts import ProcessSetup

ONE = {"workers": 1, "accumulate": 2}
MARIAN = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] Ep\. (\d+) : Up\. (\d+) : Sen\. ([\d,]+) : Cost ([\d.]+) \* ([\d,]+) "
    r"@ ([\d,]+) after ([\d,]+) : Time ([\d.]+)s : ([\d.]+) words/s : gNorm ([\d.]+) : L\.r\. ([\d.e+-]+)"
)
KEYS = {
    "kind", "time", "epoch", "update", "source_tokens", "target_tokens", "source_tokens_per_second",
    "target_tokens_per_second", "loss", "learning_rate", "gradient_norm", "effective_batch", "staleness_mean",
    "staleness_max", "waiting_share",
}  # fmt: skip


def figures(run: Path, kind: str) -> list[dict[str, object]]:
    return [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == kind]


def limit_files_to(size: int) -> Callable[[], None]:
    """Lets no file of this process grow beyond ``size`` bytes, which fails as a full disk does."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def test_a_run_that_was_stopped_goes_on_bit_equal(small_data: Path, tmp_path: Path) -> None:
    settings = {**ONE, "exponential_smoothing": 0.01, "disp_freq": "3", "valid_freq": "5"}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run_small(small_data, straight, **settings, stop_after="16")
    run_small(small_data, stopped, **settings, stop_after="8")
    run_small(small_data, stopped, **settings, stop_after="16")
    assert_same_state(straight, stopped)
    updates = [line["update"] for line in figures(stopped, "train")]
    assert updates == sorted(set(updates))
    assert updates[-1] == 16
    # Validated every five updates, and at each end.
    validated = [line["update"] for line in figures(stopped, "valid")]
    assert validated == sorted(set(validated))
    assert {8, 16} <= set(validated) <= {5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16}
    # What translates is the moving average.
    layout = FlatLayout(load_model(stopped / "checkpoints/step-16").model)
    vector = torch.zeros(layout.size)
    layout.scatter(load_file(stopped / "checkpoints/step-16/model.safetensors"), vector)
    assert torch.equal(vector, saved_state(stopped)["average"])
    assert not torch.equal(vector, saved_state(stopped)["parameters"])


@pytest.mark.parametrize(("stop", "unit", "least", "most"), [
    ("0.5e", "epochs", 0.5, 0.65), ("2kt", "target_tokens", 2000, 2600), ("0.03min", "time", 1.8, 60),
])  # fmt: skip
def test_a_run_stops_after_what_was_asked(
    small_data: Path, tmp_path: Path, stop: str, unit: str, least: float, most: float
) -> None:
    run_small(small_data, tmp_path / "run", **ONE, stop_after=stop)
    last = figures(tmp_path / "run", "train")[-1][unit]
    assert isinstance(last, int | float)
    assert least <= last <= most


def test_a_run_of_whole_epochs_applies_each_batch_once_and_reports_it(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**ONE, "accumulate": 5, "disp_freq": "2", "save_freq": "3", "valid_freq": "1e"}
    run_small(small_data, run, **settings, stop_after="1e")
    assert assert_each_batch_counted(run, small_data, 1).set_aside == []
    lines = figures(run, "train")
    assert all(line.keys() >= KEYS for line in lines)
    assert all(len(line["waiting_share"]) == 1 for line in lines)  # type: ignore[arg-type]
    assert lines[-1]["sentences"] == 600
    assert all(0 <= line["stall_longest"] <= line["stall_seconds"] < line["time"] for line in lines)  # type: ignore[operator]
    assert any(line["stall_longest"] for line in lines), "to begin a checkpoint takes time"
    assert all(0 < line["update_seconds"] < line["seconds"] for line in lines)  # type: ignore[operator]
    assert all(0 < line["reading_seconds"] < 2 * line["seconds"] for line in lines)  # type: ignore[operator]
    logged = [found.groups() for found in map(MARIAN.fullmatch, (run / "train.log").read_text().splitlines()) if found]
    assert [int(update) for _, update, *_ in logged] == [line["update"] for line in lines]
    # The same command again finds nothing to do, and does nothing twice.
    before = (run / "metrics.jsonl").read_text()
    again = run_small(small_data, run, **settings, stop_after="1e")
    assert "by --stop-after 1e" in again.said
    assert (run / "metrics.jsonl").read_text() == before


def test_patience_ends_a_run_that_gets_no_better(small_data: Path, tmp_path: Path) -> None:
    # The BLEU of so small a model stays 0.
    witness = run_small(
        small_data, tmp_path / "run", **ONE, metric="bleu", valid_translate=True, early_stopping=2, valid_freq="2",
        valid_sentences=3, learn_rate=1e-9,
    )  # fmt: skip
    assert "by 2 validations in a row without a better bleu" in witness.said
    validated = figures(tmp_path / "run", "valid")
    assert [line["stalled"] for line in validated][:3] == [0, 1, 2]
    assert (tmp_path / "run" / "best").read_text() == f"checkpoints/best-{validated[0]['update']}\n"


def test_a_disk_that_is_full_for_a_while_costs_a_warning(small_data: Path, tmp_path: Path) -> None:
    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    acts = {2: limit_files_to(200), 9: limit_files_to(resource.RLIM_INFINITY)}
    try:
        witness = run_small(small_data, run, acts, **ONE, save_freq="2", disp_freq="1", stop_after="12")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for what in ("writing a checkpoint", "writing the journal", "writing the figures"):
        assert any(warning.startswith(f"{what} failed (") for warning in witness.warnings)
        assert f"{what} works again.\n" in witness.said
    assert all("File too large" in warning for warning in witness.warnings)
    assert [line["update"] for line in figures(run, "train")] == list(range(1, 13))
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
    assert not list((run / "checkpoints").glob("*.partial"))


def test_a_disk_that_is_full_from_the_start_is_said(small_data: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_files_to(1000)()
    try:
        with pytest.raises(RunFailure, match=r"--out .*run: the run's folder could not be written \(file too large\)"):
            run_small(small_data, tmp_path / "run", **ONE, stop_after="3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_last_checkpoint_that_cannot_be_written_is_a_failure(small_data: Path, tmp_path: Path) -> None:
    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RunFailure, match=r"the last checkpoint could not be written \(.*File too large.*fix that"):
            run_small(small_data, run, {6: limit_files_to(20_000)}, **ONE, save_freq="4", stop_after="8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-4"]
    witness = run_small(small_data, run, **ONE, save_freq="4", stop_after="8")
    assert "going on after update 4." in witness.said
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])


def test_a_run_that_cannot_be_built_closes_what_it_had_opened(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RunFailure("no more")

    monkeypatch.setattr(ProcessSetup, "cluster", fail)
    open_files = []
    for name in ("first", "second"):  # the first starts what all children are forked from, which stays
        with pytest.raises(RunFailure, match="no more"):
            run_small(small_data, tmp_path / name, **ONE)
        gc.collect()
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert open_files[0] == open_files[1]


def test_pushes_that_did_not_count_are_in_the_figures(small_data: Path, tmp_path: Path) -> None:
    settings = {**ONE, "lr_warmup": "0", "lr_decay": "none", "learn_rate": 1e30, "disp_freq": "1", "stop_after": "9"}
    with pytest.raises(Diverged):
        run_small(small_data, tmp_path / "run", **settings)
    refused = [event for event in events_of(tmp_path / "run") if event.kind is Kind.NOT_FINITE]
    reported = figures(tmp_path / "run", "train")
    assert len(refused) == 4
    assert sum(line["refused_not_finite"] for line in reported) == 0, "no update came after them"
    assert all(line["refused_stale"] == 0 for line in reported)


def test_training_from_python_is_that_of_the_command(small_data: Path, tmp_path: Path) -> None:
    given = {**SIZES, "workers": 1, "sync_mode": "async", "valid_sentences": 2}
    run = nmt_async.train(
        str(small_data), out=tmp_path / "run", stop_after="4u", valid_freq=Quantity(1, "epochs"), **given
    )
    assert run == tmp_path / "run"
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert run_command(["train", str(small_data), f"--out={tmp_path}/typed", "--stop-after=4u", "-q", *typed]) == 0
    assert_same_state(run, tmp_path / "typed")
    with pytest.raises(UserError, match=r"train\(\): no option is called 'lern_rate'"):
        nmt_async.train(small_data, lern_rate=1)
