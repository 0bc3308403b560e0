"""``train --tensorboard``: TensorBoard's own reader finds each value of ``metrics.jsonl`` once, whatever happened."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import PATIENCE, run_small, typed

from nmt_async.display.recorded_run import read_reports
from nmt_async.display.reports import TrainReport, ValidReport
from nmt_async.training.metrics import MetricsFiles
from nmt_async.training.tensorboard import (
    CORPUS_TAGS,
    MACHINE_RATE,
    MACHINE_TAGS,
    STALENESS,
    TRAIN_TAGS,
    VALID_CORPUS_TAGS,
    VALID_TAGS,
    scalars,
)

ONE = {"workers": 1, "accumulate": 2, "disp_freq": "1", "valid_freq": "3"}


def shown(folder: Path) -> EventAccumulator:
    """All events, no sample of them; TensorBoard itself does not purge here what comes twice."""
    everything = {"scalars": 0, "histograms": 0}
    return EventAccumulator(str(folder / "tensorboard"), everything, purge_orphaned_data=False).Reload()


def points(events: EventAccumulator) -> list[tuple[str, int, float]]:
    return sorted((tag, one.step, one.value) for tag in events.Tags()["scalars"] for one in events.Scalars(tag))


def expected_points(folder: Path) -> list[tuple[str, int, float]]:
    reports = read_reports(folder / "metrics.jsonl")
    return sorted((tag, report.update, value) for report in reports for tag, value in scalars(report).items())


def assert_same_points(folder: Path) -> None:
    found, expected = points(shown(folder)), expected_points(folder)
    assert [point[:2] for point in found] == [point[:2] for point in expected]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in expected], rel=1e-5, nan_ok=True)


def test_every_number_of_a_report_has_a_tag() -> None:
    train, valid = ({field.name for field in dataclasses.fields(kind)} for kind in (TrainReport, ValidReport))
    several = MACHINE_TAGS.keys() | CORPUS_TAGS.keys()
    assert train == TRAIN_TAGS.keys() | several | {"update", "staleness", "waiting_share"}
    assert valid | {"perplexity"} == VALID_TAGS.keys() | VALID_CORPUS_TAGS.keys() | {"update", "metric"}


def test_a_resumed_run_has_each_value_once_and_the_histogram(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_small(small_data, folder, **ONE, tensorboard=True, valid_translate=True, valid_sentences=2, stop_after="4")
    assert_same_points(folder)
    # The next sitting is without, the one after has the figures of all three.
    run_small(small_data, folder, **ONE, valid_translate=False, stop_after="6")
    run_small(small_data, folder, **ONE, tensorboard=True, valid_translate=False, stop_after="9")
    assert_same_points(folder)
    assert len(list((folder / "tensorboard").iterdir())) == 1
    events = shown(folder)
    assert {
        "train/loss",
        "updates/effective_batch",
        "workers/waiting_share/0",
        "valid/bleu",
        "valid/cross-entropy",
    } <= {*events.Tags()["scalars"]}
    histograms = [(one.step, one.histogram_value) for one in events.Histograms(STALENESS)]
    assert [step for step, _ in histograms] == list(range(1, 10))
    for report, (_, value) in zip(trained(folder), histograms, strict=True):
        assert value.num == sum(report.staleness.values())
        counts = dict(zip(value.bucket_limit, value.bucket, strict=True))
        assert {age: counts[age + 0.5] for age in report.staleness} == report.staleness
    walls = [one.wall_time for one in events.Scalars("train/loss")]
    assert walls == sorted(walls)
    assert walls[-1] - walls[0] >= trained(folder)[-1].time / 2


def test_each_machine_of_a_shared_run_has_scalars_of_its_own(small_data: Path, tmp_path: Path) -> None:
    shared = {"cluster": "simulated", "nodes": 2, "between": "sync", "sync_mode": "sync", "workers": 1}
    run_small(small_data, tmp_path / "run", **shared, tensorboard=True, disp_freq="2", stop_after="4")
    found = {tag: [one.value for one in shown(tmp_path / "run").Scalars(tag)] for tag in (
        *(f"{tag}/{rank}" for tag in (*MACHINE_TAGS.values(), MACHINE_RATE) for rank in (0, 1)),
    )}  # fmt: skip
    reports = trained(tmp_path / "run")
    for rank in (0, 1):
        assert found[f"machines/target_tokens/{rank}"] == [report.machine_tokens[rank] for report in reports]
        rates = [report.machine_tokens[rank] / report.seconds for report in reports]
        assert found[f"{MACHINE_RATE}/{rank}"] == pytest.approx(rates, rel=1e-4)


def trained(folder: Path) -> list[TrainReport]:
    return [report for report in read_reports(folder / "metrics.jsonl") if isinstance(report, TrainReport)]


def a_report(update: int) -> TrainReport:
    values: dict[str, Any] = {field.name: update for field in dataclasses.fields(TrainReport)}
    values |= {name: [] for name in MACHINE_TAGS} | {name: {"news": update} for name in CORPUS_TAGS}
    return TrainReport(**{**values, "staleness": {0: 3, 2: 1}, "waiting_share": [0.5, 0.25]})


def test_what_a_killed_run_made_after_its_checkpoint_is_gone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    for begin, end in ((0, 5), (3, 7)):
        files = MetricsFiles(tmp_path, begin, begin, tensorboard=True)
        for update in range(begin + 1, end + 1):
            files.trained(a_report(update))
        if end == 7:
            files.close()  # the first one never gets to it
    assert [step for tag, step, _ in points(shown(tmp_path)) if tag == "train/loss"] == list(range(1, 8))
    assert_same_points(tmp_path)


@pytest.mark.parametrize("which", ["all files", "the events"])
def test_a_disk_that_is_full_for_a_while_leaves_no_gap(tmp_path: Path, which: str) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    files = MetricsFiles(tmp_path, 0, 0, tensorboard=True)
    for update in range(1, 5):
        files.trained(a_report(update))
    (events,) = (tmp_path / "tensorboard").iterdir()
    limit = 200 if which == "all files" else (tmp_path / "metrics.jsonl").stat().st_size + 1000
    assert limit < events.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        for update in (5, 6):
            with pytest.raises(OSError, match="File too large"):
                files.trained(a_report(update))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "tensorboard").glob("*.partial"))
    for update in (7, 8):
        files.trained(a_report(update))
    files.close()
    assert [report.update for report in trained(tmp_path)] == list(range(1, 9))
    assert_same_points(tmp_path)


HIDDEN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorboard" else find(name, *rest)
from nmt_async.cli.start import main
main()
"""
"""The command in a Python that does not find the package."""


def test_without_the_package_one_sentence_names_it_before_a_folder_is_made(small_data: Path, tmp_path: Path) -> None:
    words = ["train", str(small_data), *typed(tmp_path / "run", stop_after=1), "--tensorboard"]
    done = subprocess.run([sys.executable, "-c", HIDDEN, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == (
        "nmt-async: --tensorboard: the package tensorboard is not installed; "
        "run pip install 'nmt-async[tensorboard]'.\n"
    )
    assert not (tmp_path / "run").exists()
