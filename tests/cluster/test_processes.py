"""Workers in real processes: what the journal says of them happens again, and nothing of a batch is lost."""

from __future__ import annotations

from pathlib import Path

import torch
from training_runs import (
    applications,
    assert_same_state,
    epochs_of,
    events_of,
    kill_child,
    replayed,
    run_small,
    saved_state,
    small_options,
)

from nmt_async.sync.journal import Kind


def kill_both() -> None:
    kill_child("worker 0")
    kill_child("worker 1")


def test_an_asynchronous_journal_replays_to_bit_equal_parameters(small_data: Path, tmp_path: Path) -> None:
    witness = run_small(small_data, tmp_path / "run", sync_mode="async", stop_after="16")
    assert witness.warnings == []
    assert torch.equal(replayed(tmp_path / "run", small_data), saved_state(tmp_path / "run")["parameters"])


def test_killed_workers_lose_no_batch_and_replay(small_data: Path, tmp_path: Path) -> None:
    acts = {4: kill_both, 12: lambda: kill_child("worker 0")}
    witness = run_small(small_data, tmp_path / "run", acts, accumulate=3, stop_after="2e")
    events = events_of(tmp_path / "run")
    assert set(applications(events).values()) == {1}
    assert applications(events).keys() == epochs_of(small_data, small_options(tmp_path), 2)
    returned = [(event.worker, event.batch) for event in events if event.kind is Kind.RETURNED]
    assert returned  # at least the worker whose push made update 4 had begun another batch
    for worker, (epoch, number) in returned:
        told = f"worker {worker} died at batch {number} of epoch {epoch} (killed by signal 9; out of memory?)"
        assert sum(told in warning for warning in witness.warnings) == 1
    assert sum("a new one takes its place" in warning for warning in witness.warnings) == 3
    assert torch.equal(replayed(tmp_path / "run", small_data), saved_state(tmp_path / "run")["parameters"])


def test_neither_a_death_nor_a_stop_changes_anything_in_sync(small_data: Path, tmp_path: Path) -> None:
    calm, troubled = tmp_path / "calm", tmp_path / "troubled"
    assert run_small(small_data, calm, sync_mode="sync", accumulate=2, stop_after="8").warnings == []
    death = {3: lambda: kill_child("worker 0")}
    run_small(small_data, troubled, death, sync_mode="sync", accumulate=2, stop_after="5")
    run_small(small_data, troubled, sync_mode="sync", accumulate=2, stop_after="8")
    assert_same_state(calm, troubled)
    for run in (calm, troubled):
        assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
