"""A run goes on with other workers where its update stays the same, and is refused where it would not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nmt_async.cli.main import run as command
from training_runs import assert_same_state, events_of, replayed, run_small, saved_state, small_options

from nmt_async.errors import UserError
from nmt_async.sync.journal import Kind
from nmt_async.text.prepared import PreparedData
from nmt_async.training.resuming import with_workers
from nmt_async.training.run_folder import RunFolder, read_options, settled

SYNC, HYBRID, ASYNC = {"sync_mode": "sync"}, {"sync_mode": "hybrid", "accumulate": 3}, {"sync_mode": "async"}

ADAPTIVE = {"sync_mode": "adaptive", "workers": 4}


def begin(out: Path, data: Path, **changes: Any) -> None:
    RunFolder(out, settled(small_options(out, **changes)), PreparedData.open(data)).close()


def test_a_synchronous_run_goes_on_bit_equal_with_other_workers(small_data: Path, tmp_path: Path) -> None:
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    run_small(small_data, straight, **SYNC, workers=2, stop_after="9")
    run_small(small_data, changed, **SYNC, workers=2, stop_after="4")
    witness = run_small(small_data, changed, **SYNC, workers=1, stop_after="9")
    assert "going on with 1 worker instead of 2: the effective batch stays about " in witness.said
    assert "stays about " in (changed / "train.log").read_text()
    assert read_options(changed).accumulate == 2
    assert_same_state(straight, changed)
    assert [event.worker for event in events_of(changed) if event.kind is Kind.RESUMED] == [1]
    assert torch.equal(replayed(changed, small_data), saved_state(changed)["parameters"])


def test_a_hybrid_run_goes_on_with_other_workers_and_replays(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_small(small_data, run, **HYBRID, workers=1, stop_after="3")
    witness = run_small(small_data, run, **HYBRID, workers=2, stop_after="6")
    assert "target tokens, staleness becomes about 0.33 instead of none." in witness.said
    assert [event.worker for event in events_of(run) if event.kind is Kind.RESUMED] == [2]
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
    assert "before" in saved_state(run), "two workers predict"
    assert command(["replay", str(run)]) == 0
    run_small(small_data, run, **HYBRID, workers=1, stop_after="9")
    assert "before" not in saved_state(run), "for one there is nothing to predict"
    assert command(["replay", str(run)]) == 0


@pytest.mark.parametrize(("begun", "workers", "accumulate"), [
    ({**SYNC, "workers": 4}, 2, 2), ({**SYNC, "workers": 2, "accumulate": 3}, 6, 1), ({**HYBRID, "workers": 4}, 1, 3),
    ({"sync_mode": "hybrid", "workers": 4}, 2, 4), ({**ASYNC, "workers": 4}, 7, 1),
    ({**SYNC, "workers": 4, "fastest": 3}, 2, 2), ({**ADAPTIVE, "accumulate": 2}, 3, 2), (ADAPTIVE, 6, 4),
])  # fmt: skip
def test_the_update_is_kept_if_nobody_says_otherwise(
    small_data: Path, tmp_path: Path, begun: dict[str, Any], workers: int, accumulate: int
) -> None:
    begin(tmp_path / "run", small_data, **begun)
    begin(tmp_path / "run", small_data, **{**begun, "accumulate": None, "workers": workers})
    options = read_options(tmp_path / "run")
    assert (options.workers, options.accumulate) == (workers, accumulate)


@pytest.mark.parametrize(("begun", "now", "said"), [
    ({**SYNC, "workers": 4}, {"workers": 3}, r"sums 4 pushes, about [\d,]+ target tokens; now it would sum 3, about "
     r"[\d,]+, .*; give --workers 4 \(several may share a device\) --accumulate 1 to go on"),
    ({**SYNC, "workers": 4}, {"workers": 2, "accumulate": 1}, r"now it would sum 2, .*; give --accumulate 2 to go on"),
    ({**HYBRID, "workers": 4}, {"accumulate": 2}, r"now it would sum 2, .*; give --accumulate 3 to go on"),
    ({**SYNC, "workers": 4, "fastest": 3}, {"fastest": 2}, r"begun with --fastest 3, now it is 2"),
    (ADAPTIVE, {"workers": 3}, r"each worker adds one push to an update, so 4 of them need as many workers"),
    (ADAPTIVE, {"accumulate": 3}, r"an update of that run sums 4 pushes, .*; now it would sum 3"),
    ({**SYNC, "cluster": "simulated", "workers": 4}, {"workers": 2}, r"begun with --workers 4, now it is 2"),
    ({**HYBRID, "workers": 4}, {"mini_batch_words": 200}, r"begun with --mini-batch-words 300, now it is 200"),
    ({**HYBRID, "workers": 4}, {"local_accumulate": 2}, r"begun with --local-accumulate 1, now it is 2"),
    ({**HYBRID, "workers": 4}, {"sync_mode": "async", "accumulate": 1}, r"begun with --sync-mode hybrid, now"),
])  # fmt: skip
def test_another_update_is_refused_with_what_would_keep_it(
    small_data: Path, tmp_path: Path, begun: dict[str, Any], now: dict[str, Any], said: str
) -> None:
    begin(tmp_path / "run", small_data, **begun)
    kept = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UserError, match=said):
        begin(tmp_path / "run", small_data, **{**begun, **now})
    assert (tmp_path / "run" / "config.yaml").read_text() == kept


def test_a_configuration_without_counts_is_refused(small_data: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", small_data)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("workers: 2", "workers: null"))
    with pytest.raises(UserError, match="does not say how many workers it had"):
        begin(tmp_path / "run", small_data)


def test_virtual_workers_stay(tmp_path: Path) -> None:
    options = small_options(tmp_path, cluster="simulated", workers=3, accumulate=1)
    assert with_workers(options, 2) == options
