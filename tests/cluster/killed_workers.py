"""A run whose workers are killed, in two sittings, wherever its vectors lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_runs import assert_each_batch_counted, events_of, kill_child, run_small, saved_state

from nmt_async.sync import Kind


def assert_killed_workers_lose_no_batch_and_the_run_goes_on(data: Path, run: Path, **options: Any) -> None:
    """Three deaths in two epochs; after the first epoch the run is begun again where it was."""

    def kill_both() -> None:
        kill_child("worker 0")
        kill_child("worker 1")

    options = {"accumulate": 3, "exponential_smoothing": 0.1, **options}
    first = run_small(data, run, {4: kill_both}, stop_after="1e", **options)
    assert sum("a new one takes its place" in warning for warning in first.warnings) == 2
    made = sum(event.kind is Kind.UPDATED for event in events_of(run))
    second = run_small(data, run, {made + 2: lambda: kill_child("worker 1")}, stop_after="2e", **options)
    assert sum("a new one takes its place" in warning for warning in second.warnings) == 1
    assert assert_each_batch_counted(run, data, 2).set_aside == []
    assert Kind.RESUMED in {event.kind for event in events_of(run)}
    assert all(bool(tensor.isfinite().all()) for tensor in saved_state(run).values())
