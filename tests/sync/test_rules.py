"""What each mode answers: which pushes count, when they become an update, who must wait, and what to expect of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync import MODES, Asynchronous, Hybrid, Round, Standing, Synchronous, rule_for


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), own=st.integers(0, 99), others=st.integers(0, 99))
def test_in_sync_a_round_is_n_batches_of_each_worker_on_one_version(
    workers: int, accumulate: int, own: int, others: int
) -> None:
    rule = rule_for("sync", workers, accumulate)
    assert rule.ordered
    assert rule.pushes == workers * accumulate
    assert rule.counts(0)
    assert not rule.counts(1)
    may = rule.may_start(Standing(own, own + others))
    assert may == (own < accumulate and own + others < workers * accumulate)
    assert rule.staleness(workers) == 0.0


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), own=st.integers(0, 99), stale=st.integers(0, 99))
def test_in_hybrid_an_update_sums_n_pushes_of_any_age_and_nobody_waits(
    workers: int, accumulate: int, own: int, stale: int
) -> None:
    rule = rule_for("hybrid", workers, accumulate)
    assert not rule.ordered
    assert rule.pushes == accumulate
    assert rule.counts(stale)
    assert rule.may_start(Standing(own, own))
    assert rule.staleness(workers) == (workers - 1) / accumulate


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), pushes=st.integers(0, 99))
@pytest.mark.parametrize("mode", ["sync", "hybrid"])
def test_an_update_is_due_with_the_last_of_its_pushes(mode: str, workers: int, accumulate: int, pushes: int) -> None:
    rule = rule_for(mode, workers, accumulate)
    assert rule.may_update(Round(pushes, 7, [3])) == (pushes >= rule.pushes)


def test_async_is_hybrid_with_one_push_an_update() -> None:
    one, other = rule_for("async", 4), rule_for("hybrid", 4, 1)
    assert (one.pushes, one.accumulate, one.ordered) == (other.pushes, other.accumulate, other.ordered)
    assert one.staleness(4) == other.staleness(4) == 3
    with pytest.raises(ValueError, match="choose hybrid"):
        rule_for("async", 4, 2)


def test_by_default_hybrid_sums_two_pushes_of_each_worker_and_sync_one() -> None:
    assert (rule_for("hybrid", 3), rule_for("sync", 3), rule_for("async", 3)) == (
        Hybrid(6), Synchronous(3, 1), Asynchronous()
    )  # fmt: skip


def test_a_rule_says_its_short_name() -> None:
    rules = [rule_for("sync", 2), rule_for("sync", 2, 3), rule_for("async", 2), rule_for("hybrid", 2, 5)]
    assert [rule.name for rule in rules] == ["sync", "sync:3", "async", "hybrid:5"]


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), others=st.integers(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_other_workers_make_the_same_update_or_none(mode: str, workers: int, accumulate: int, others: int) -> None:
    rule = rule_for(mode, workers, None if mode == "async" else accumulate)
    same = rule.with_workers(others)
    if mode == "sync" and rule.pushes % others:
        assert same is None
    else:
        assert same is not None
        assert (same.pushes, type(same)) == (rule.pushes, type(rule))


def test_the_oldest_pull_is_that_of_the_worker_furthest_behind() -> None:
    assert Round(0, 7, [7, 3, 5]).oldest == 4
    assert Round(0, 7).oldest == 0


def test_a_mode_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'turbo' is not one of sync, async, hybrid"):
        rule_for("turbo", 1, 1)
    for workers, accumulate in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="1 or more"):
            rule_for("sync", workers, accumulate)
