"""The run's own process is killed at a random moment: nothing of it stays, and what it had saved goes on bit-equal."""

from __future__ import annotations

from pathlib import Path

import torch
from moments import random_moments
from training_runs import (
    assert_each_batch_counted,
    assert_same_state,
    events_of,
    replayed,
    run_small,
    saved_state,
)
from watched import WatchedRun

from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import RECORD_BYTES
from nmt_async.sync.ledger import ledger_of

DETERMINED = [
    {"sync_mode": "sync", "workers": 2}, {"sync_mode": "sync", "workers": 1, "accumulate": 2},
    {"sync_mode": "async", "workers": 1}, {"sync_mode": "hybrid", "accumulate": 3, "workers": 1},
    {"sync_mode": "async", "local_accumulate": 2, "workers": 1},
]  # fmt: skip
"""Where the order of pushes does not depend on time."""


def test_a_run_killed_at_a_random_moment_leaves_nothing_and_goes_on_bit_equal(small_data: Path, tmp_path: Path) -> None:
    random, killed, straight = random_moments(), tmp_path / "killed", tmp_path / "straight"
    mode = random.choice(DETERMINED)
    settings = {**mode, "exponential_smoothing": 0.01, "valid_freq": "1M"}
    moment = RECORD_BYTES * random.randint(0, 150)
    run = WatchedRun(
        small_data, killed, **settings, save_freq=str(random.randint(1, 5)), disp_freq="2", stop_after="99e"
    )
    try:
        assert run.until(lambda: run.size() > moment)
        run.passed(random.random() / 2)
        run.process.kill()
        run.process.wait()
        assert run.left_behind() == []
    finally:
        run.end()
    with (killed / "journal").open("ab") as journal:
        journal.write(random.randbytes(random.randrange(RECORD_BYTES)))
    saved = sorted(int(path.name.removeprefix("step-")) for path in (killed / "checkpoints").glob("step-*[0-9]"))
    epochs = ledger_of(events_of(killed)).position.epoch
    witness = run_small(small_data, killed, **settings, disp_freq="2", stop_after=f"{epochs}e")
    assert not saved or f"going on after update {saved[-1]:,}." in witness.said
    run_small(small_data, straight, **settings, stop_after=f"{epochs}e")
    assert_same_state(straight, killed)
    assert torch.equal(replayed(killed, small_data), saved_state(killed)["parameters"])
    assert assert_each_batch_counted(killed, small_data, epochs).set_aside == []
    updates = [line["update"] for line in read_json_lines(killed / "metrics.jsonl") if line["kind"] == "train"]
    assert updates == sorted(set(updates))
