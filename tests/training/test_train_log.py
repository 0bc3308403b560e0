"""``train.log`` is read by marian-tensorboard, as a user of Marian calls it, and nothing of the run is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import PATIENCE, run_small

from nmt_async.display.marian_log import VALIDATION_NAMES, valid_lines
from nmt_async.display.reports import ValidReport
from nmt_async.reading import read_json_lines

TRAINING = {
    "train/Cost": "loss",
    "train/words_per_second": "target_tokens_per_second",
    "train/gradient_norm": "gradient_norm",
    "train/learning_rate": "learning_rate",
    "train/epoch": "epoch",
    "train/total_sentences": "sentences",
    "train/total_labels": "target_tokens",
    "train/effective_batch_size": "latest_tokens",
}
"""What marian-tensorboard calls the figures of a training line, and their names in ``metrics.jsonl``."""

PRECISION = 1e-4
"""Marian's lines hold the gradient's norm and the learning rate to four digits after the point."""


def read_by_marian_tensorboard(log: Path, work: Path) -> dict[tuple[str, int], float]:
    """All that the command finds in a log: (tag, update) to value."""
    words = ["--log-file", str(log), "--work-dir", str(work), "--offline", "--port", "0", "--tool", "tb"]
    subprocess.run(
        [sys.executable, "-m", "marian_tensorboard.marian_tensorboard", *words], check=True, timeout=PATIENCE,
        capture_output=True,
    )  # fmt: skip
    (folder,) = work.iterdir()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def test_marian_tensorboard_finds_every_value_of_a_run_that_was_resumed(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {"workers": 1, "accumulate": 2, "disp_freq": "1", "valid_freq": "2", "valid_sentences": 2}
    for stop in ("5", "9"):
        run_small(small_data, run, **settings, valid_translate=True, stop_after=stop)
    found = read_by_marian_tensorboard(run / "train.log", tmp_path / "events")
    expected = {}
    for line in read_json_lines(run / "metrics.jsonl"):
        if line["kind"] == "train":
            named = {tag: line[name] for tag, name in TRAINING.items()}
        else:
            named = {f"valid/{marian}": line[name.replace("-", "_")] for name, marian in VALIDATION_NAMES.items()}
            named[f"valid/{VALIDATION_NAMES[line['metric']]}_stalled"] = line["stalled"]
        expected |= {(tag, line["update"]): value for tag, value in named.items()}
    assert {update for tag, update in expected if tag == "train/Cost"} == set(range(1, 10))
    assert {5, 9} <= {update for tag, update in expected if tag == "valid/bleu"}
    assert {key: found.get(key) for key in expected} == pytest.approx(expected, rel=PRECISION, abs=PRECISION)


def test_marian_tensorboard_reads_a_run_that_machines_share(shared_run: Path, tmp_path: Path) -> None:
    """What the log says of each machine is none of its business, and no hindrance."""
    assert "[machines]" in (shared_run / "train.log").read_text()
    found = read_by_marian_tensorboard(shared_run / "train.log", tmp_path / "events")
    reports = [line for line in read_json_lines(shared_run / "metrics.jsonl") if line["kind"] == "train"]
    expected = {(tag, line["update"]): line[name] for line in reports for tag, name in TRAINING.items()}
    trained = {key: value for key, value in found.items() if key[0] in TRAINING}
    assert trained == pytest.approx(expected, rel=PRECISION, abs=PRECISION)


@pytest.mark.parametrize(
    ("entropy", "bleu", "logged"),
    [
        (20.0, 3e-7, ["20", "485165000", "0.0000003", "100"]),
        (1.0, 31.415926, ["1", "2.71828", "31.4159", "100"]),
        (float("nan"), None, ["nan", "nan", "100"]),
    ],
)
def test_scores_are_written_without_exponents(entropy: float, bleu: float | None, logged: list[str]) -> None:
    report = ValidReport(1.0, 1, 7, 10, 10, entropy, bleu, 100.0, "chrf", 2, 123456.7, 0.5)
    assert [line.split(" : ")[3] for line in valid_lines(report)] == logged
    assert valid_lines(report)[-1].endswith(" : chrf : 100 : stalled 2 times (last best: 123457)")
