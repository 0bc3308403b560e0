"""What is stated before a run is what the run then measures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import run_small, small_options

from nmt_async.formatting import about
from nmt_async.quantity import Quantity
from nmt_async.reading import read_json_lines
from nmt_async.sync.rules import rule_for
from nmt_async.text.prepared import PreparedData
from nmt_async.training.dry_run import describe
from nmt_async.training.expectation import Expectation, expectation, expected
from nmt_async.training.parts import training_plan

SIMULATED = {"cluster": "simulated", "cpu_threads": 1, "disp_freq": "1M", "valid_freq": "1M"}
MODES: list[dict[str, Any]] = [
    {"sync_mode": "sync", "workers": 2, "accumulate": 2},
    {"sync_mode": "async", "workers": 3, "local_accumulate": 2},
    {"sync_mode": "hybrid", "workers": 4, "accumulate": 3, "profile": "uneven"},
    {"sync_mode": "hybrid", "workers": 1, "accumulate": 2},
    {"sync_mode": "hybrid", "workers": 4, "accumulate": 3, "profile": "uneven", "oldest_push": 0},
    {"sync_mode": "sync", "workers": 4, "profile": "uneven", "fastest": 3},
    {"sync_mode": "sync", "workers": 4, "accumulate": 2, "profile": "uneven", "balance": True},
    {"sync_mode": "hybrid", "workers": 4, "accumulate": 2, "profile": "uneven", "max_staleness": 0},
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_a_run_measures_what_was_expected(small_data: Path, tmp_path: Path, mode: dict[str, Any]) -> None:
    options = small_options(tmp_path / "run", **SIMULATED, **mode, stop_after="2e")
    stated = expected(options, training_plan(options, PreparedData.open(small_data)))
    witness = run_small(small_data, tmp_path / "run", **SIMULATED, **mode, stop_after="2e")
    assert stated.update_text() in witness.said
    assert stated.update_text() in (tmp_path / "run" / "train.log").read_text()
    (line,) = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert line["target_tokens"] == stated.amount(options.stop_after, "tokens")
    # The last update may be a smaller one, and at the start no push is old.
    updates = stated.amount(options.stop_after, "updates")
    assert line["update"] == math.ceil(round(updates, 6))
    assert line["effective_batch"] == pytest.approx(stated.effective_batch, rel=1 / updates)
    assert line["staleness_mean"] == pytest.approx(stated.staleness, rel=4 / updates)
    assert (line["staleness_mean"] == 0) == (stated.staleness == 0)


@given(
    mode=st.sampled_from(["sync", "async", "hybrid"]),
    workers=st.integers(1, 64),
    accumulate=st.integers(1, 16),
    pushes=st.integers(1, 10**6),
    tokens=st.integers(1, 2048),
    local=st.integers(1, 8),
)
def test_amounts_are_the_same_in_every_unit(
    mode: str, workers: int, accumulate: int, pushes: int, tokens: int, local: int
) -> None:
    rule = rule_for(mode, workers, 1 if mode == "async" else accumulate)
    stated = expectation(rule, workers, tokens * pushes, pushes, local)
    assert stated.effective_batch == tokens * rule.pushes
    assert stated.amount(Quantity(1, "epochs"), "tokens") == tokens * pushes
    assert stated.amount(Quantity(pushes, "updates"), "epochs") == pytest.approx(rule.pushes)
    back = Quantity(stated.amount(Quantity(3, "updates"), "tokens"), "tokens")
    assert stated.amount(back, "updates") == pytest.approx(3)
    assert stated.staleness == {"sync": 0, "async": workers - 1, "hybrid": (workers - 1) / rule.pushes}[mode]


@pytest.mark.parametrize("bound", [
    {"oldest_push": 1}, {"oldest_push": 1, "older_pushes": "restart"}, {"max_staleness": 1}, {"max_staleness": 2},
], ids=str)  # fmt: skip
def test_of_a_bounded_staleness_the_most_is_stated(small_data: Path, tmp_path: Path, bound: dict[str, Any]) -> None:
    mode = {"sync_mode": "hybrid", "workers": 4, "accumulate": 2, "profile": "uneven", **bound, **SIMULATED}
    options = small_options(tmp_path / "run", **mode, stop_after="2e")
    stated = expected(options, training_plan(options, PreparedData.open(small_data)))
    assert "; staleness at most about" in stated.update_text()
    assert stated.or_more == ("or more; " in stated.update_text()) == ("max_staleness" in bound)
    run_small(small_data, tmp_path / "run", **mode, stop_after="2e")
    (line,) = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert 0 < line["staleness_mean"] <= stated.staleness
    updates = stated.amount(options.stop_after, "updates")
    if stated.or_more:
        assert line["effective_batch"] > stated.effective_batch
    else:
        assert line["effective_batch"] == pytest.approx(stated.effective_batch, rel=1 / updates)
    assert line["staleness_max"] <= max(bound.get("oldest_push", 0), bound.get("max_staleness", 0))


def test_of_updates_that_grow_both_ends_are_stated(small_data: Path, tmp_path: Path) -> None:
    mode = {"sync_mode": "adaptive", "accumulate_first": 2, "workers": 4, **SIMULATED}
    options = small_options(tmp_path / "run", **mode, stop_after="8e")
    stated = expected(options, training_plan(options, PreparedData.open(small_data)))
    size = stated.push_tokens
    assert stated.update_text() == (
        f"an update sums 2 to 4 pushes of about {about(size)} target tokens, more as the loss falls: effective batch "
        f"about {about(2 * size)} to {about(4 * size)}; staleness at most about 1."
    )
    assert stated.amounts_text({"--lr-warmup": Quantity(20, "updates")}) == "", "nobody knows how many tokens they have"
    assert "updates" not in stated.amounts_text({"--stop-after": Quantity(8, "epochs")})
    assert "updates in the end" in describe(options, small_data)
    witness = run_small(small_data, tmp_path / "run", **mode, stop_after="8e")
    assert "adaptive, 2 to 4 pushes an update" in witness.said
    (line,) = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert stated.effective_batch < line["effective_batch"] < stated.largest_batch
    assert 0 < line["staleness_mean"] <= stated.staleness


def test_it_is_said_in_words() -> None:
    stated = Expectation(pushes=4, push_batches=1, push_tokens=1989.6, epoch_tokens=663_700, staleness=0.75)
    assert stated.update_text() == (
        "an update sums 4 pushes of about 1,990 target tokens: effective batch about 7,960; staleness about 0.75."
    )
    amounts = {"--lr-warmup": Quantity(600_000, "tokens"), "--stop-after": Quantity(16_000, "updates")}
    assert stated.amounts_text(amounts) == (
        "--lr-warmup 600kt is about 75.4 updates or 0.9 epochs; "
        "--stop-after 16k is about 127,000,000 target tokens or 192 epochs."
    )
    alone = Expectation(pushes=1, push_batches=2, push_tokens=3979.0, epoch_tokens=663_700, staleness=0)
    assert alone.update_text() == (
        "each push of about 3,980 target tokens (sums of 2 batches) is an update; staleness none."
    )
    nothing = {"--lr-warmup": Quantity(0, "updates"), "--stop-after": Quantity(2, "hours"), "--lr-decay-end": None}
    assert stated.amounts_text(nothing) == ""


@pytest.mark.parametrize(("value", "text"), [
    (1989.6, "1,990"), (377.4, "377"), (75.43, "75.4"), (0.749, "0.75"), (0.9, "0.9"), (9.99, "10"), (1.0, "1"),
    (99.96, "100"), (999.6, "1,000"), (0.000012, "0.000012"), (3_000_000, "3,000,000"), (10, "10"),
])  # fmt: skip
def test_numbers_are_rounded(value: float, text: str) -> None:
    assert about(value) == text
