"""The whole run is ended from outside; what it left is complete, and it goes on from there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from training_runs import (
    PATIENCE,
    alive,
    assert_each_batch_counted,
    assert_same_state,
    events_of,
    family,
    ledger_at_end,
    replayed,
    reports_of,
    run_small,
    saved_state,
    start_typed,
    until,
)

from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import Kind
from nmt_async.training.run_folder import read_outcome

ENDLESS = {"stop_after": "1000e", "disp_freq": "2", "save_freq": "4", "valid_freq": "1M"}


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_signal_saves_and_the_next_start_goes_on(
    number: signal.Signals, workers: int, small_data: Path, tmp_path: Path
) -> None:
    run, shared = tmp_path / "run", sorted(os.listdir("/dev/shm"))
    # Two pushes an update, so that also one worker leaves a round open.
    with start_typed(small_data, run, **ENDLESS, workers=workers, accumulate=2) as process:
        until(lambda: reports_of(run) >= 2, "two reports")
        children = family(process.pid) - {process.pid}
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    updates = int((run / "last").read_text().rpartition("-")[2])
    last_line = said.splitlines()[-1]
    assert last_line == (
        f"nmt-async: stopped at update {updates:,} by signal {number.name}; the run is saved, "
        f"give the same command to go on."
    )
    until(lambda: not any(map(alive, children)), "the children's end")
    assert sorted(os.listdir("/dev/shm")) == shared
    epochs = 1 + ledger_at_end(run, small_data).position.epoch
    witness = run_small(small_data, run, workers=workers, accumulate=2, stop_after=f"{epochs}e")
    assert f"going on after update {updates:,}." in witness.said
    assert assert_each_batch_counted(run, small_data, epochs).set_aside == []
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])


def test_a_reader_that_goes_away_does_not_end_the_run(small_data: Path, tmp_path: Path) -> None:
    with start_typed(small_data, tmp_path / "run", workers=1, disp_freq="1", stop_after="8") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(timeout=PATIENCE) == 0
    assert (tmp_path / "run" / "last").read_text() == "checkpoints/step-8\n"
    assert reports_of(tmp_path / "run") >= 8


def test_a_signal_during_the_last_validation_leaves_it_for_the_next_start(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start_typed(small_data, run, workers=1, disp_freq="4", stop_after="4", valid_beam_size=64) as process:
        until(lambda: reports_of(run) >= 1, "the report before the last validation")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    assert [line["kind"] for line in read_json_lines(run / "metrics.jsonl")] == ["train"]
    assert read_outcome(run)[0] == "interrupted"
    run_small(small_data, run, workers=1, stop_after="4")
    assert [(line["kind"], line["update"]) for line in read_json_lines(run / "metrics.jsonl")] == [
        ("train", 4),
        ("valid", 4),
    ]
    assert read_outcome(run)[0] == "finished"


def test_signals_change_a_synchronous_run_no_more_than_if_none_had_come(small_data: Path, tmp_path: Path) -> None:
    """Rounds of many pushes, so that both signals find one under way; it stays open and keeps its order."""
    settings = {"workers": 2, "sync_mode": "sync", "accumulate": 12, "mini_batch_words": 120, "stop_after": "20"}
    run, straight = tmp_path / "run", tmp_path / "straight"
    for updates in (1, 2):
        with start_typed(small_data, run, **settings, save_freq="1", disp_freq="1") as process:
            until(lambda updates=updates: reports_of(run) >= updates, f"{updates} reports")
            size = (run / "journal").stat().st_size
            until(lambda size=size: (run / "journal").stat().st_size > size or process.poll() is not None, "a push")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    events = events_of(run)
    assert Kind.STOPPED not in {event.kind for event in events}
    run_small(small_data, run, **settings, save_freq="1", disp_freq="1")
    run_small(small_data, straight, **settings, save_freq="1", disp_freq="1")
    assert_same_state(straight, run)
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
