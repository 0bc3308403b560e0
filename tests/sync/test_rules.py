"""What each mode answers: which pushes count, when they become an update, who must wait, and what to expect of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync import MODES, Asynchronous, Hybrid, Round, Standing, Synchronous, Waiting, rule_for


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


@given(oldest=st.integers(0, 9), stale=st.integers(0, 20), restart=st.booleans())
@pytest.mark.parametrize("mode", ["hybrid", "async"])
def test_a_push_counts_up_to_the_oldest_that_may(mode: str, oldest: int, stale: int, restart: bool) -> None:
    older = "restart" if restart else "recompute"
    rule = rule_for(mode, 4, waiting=Waiting(oldest_push=oldest, older_pushes=older))
    assert rule.counts(stale) == (stale <= oldest)
    assert rule.restarts == restart
    assert rule.may_start(Standing(9, 9, Round(9, 9, [0])))
    assert rule.staleness(4) == min(oldest, rule_for(mode, 4).staleness(4))


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 5), fastest=st.integers(1, 60), restart=st.booleans())
def test_in_sync_the_fastest_pushes_of_a_round_are_enough(
    workers: int, accumulate: int, fastest: int, restart: bool
) -> None:
    waiting = Waiting(fastest=fastest, older_pushes="restart" if restart else "recompute")
    batches = workers * accumulate
    if fastest > batches:
        with pytest.raises(ValueError, match=f"a round has {batches} pushes"):
            rule_for("sync", workers, accumulate, waiting)
        return
    rule = rule_for("sync", workers, accumulate, waiting)
    if fastest == batches:
        assert rule == rule_for("sync", workers, accumulate)
        return
    assert (rule.pushes, rule.staleness(workers), rule.held(workers), rule.ordered) == (fastest, 0.0, 0, False)
    assert rule.may_update(Round(fastest, 3, [1]))
    assert not rule.may_update(Round(fastest - 1, 3, []))
    assert rule.restarts == restart
    assert not rule.counts(1)
    assert rule.may_start(Standing(accumulate - 1, batches - 1))
    assert not rule.may_start(Standing(accumulate, batches - 1))


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), own=st.integers(0, 99), others=st.integers(0, 99))
def test_in_a_balanced_round_whoever_is_free_takes_the_next_batch(
    workers: int, accumulate: int, own: int, others: int
) -> None:
    rule = rule_for("sync", workers, accumulate, Waiting(balance=True))
    assert rule.ordered
    assert rule.pushes == workers * accumulate
    assert rule.may_start(Standing(own, own + others)) == (own + others < workers * accumulate)


@pytest.mark.parametrize(("pulled", "bound", "due"), [
    ([], 0, True), ([7], 0, False), ([7], 1, True), ([7, 6], 1, False), ([7, 6], 2, True), ([3], 4, False),
    ([3], 5, True),
])  # fmt: skip
def test_an_update_waits_for_whom_it_would_make_too_old(pulled: list[int], bound: int, due: bool) -> None:
    """At version 7 with enough pushes, and pulls of these versions out."""
    rule = rule_for("hybrid", 4, 2, Waiting(max_staleness=bound))
    assert rule.may_update(Round(2, 7, pulled)) == due
    assert not rule.may_update(Round(1, 7, pulled))
    assert rule.counts(99), "none is refused"
    assert not rule.may_start(Standing(0, 0, Round(2, 7, pulled))), "nobody begins while an update waits"
    assert rule.may_start(Standing(0, 1, Round(1, 7, pulled)))
    assert rule.may_start(Standing(0, 2, Round(1, 7, pulled))) == (bound > 0), "a barrier begins only what it needs"


@pytest.mark.parametrize(("mode", "waiting", "why"), [
    ("sync", Waiting(oldest_push=1), "oldest push means nothing in sync; it is for async and hybrid"),
    ("sync", Waiting(max_staleness=1), "max staleness means nothing in sync"),
    ("sync", Waiting(older_pushes="restart"), "give the fastest, too"),
    ("hybrid", Waiting(fastest=2), "fastest means nothing in hybrid; it is for sync"),
    ("hybrid", Waiting(oldest_push=1, max_staleness=1), "give one of the two bounds"),
    ("async", Waiting(older_pushes="restart"), "give the oldest push, too"),
])  # fmt: skip
def test_what_means_nothing_together_is_refused_with_the_reason(mode: str, waiting: Waiting, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rule_for(mode, 4, waiting=waiting)


def test_by_default_hybrid_sums_as_many_pushes_as_there_are_workers_and_sync_one_of_each() -> None:
    assert (rule_for("hybrid", 3), rule_for("sync", 3), rule_for("async", 3)) == (
        Hybrid(3), Synchronous(3, 1), Asynchronous()
    )  # fmt: skip


def test_a_rule_says_its_short_name() -> None:
    rules = [rule_for("sync", 2), rule_for("sync", 2, 3), rule_for("async", 2), rule_for("hybrid", 2, 5)]
    assert [rule.name for rule in rules] == ["sync", "sync:3", "async", "hybrid:5"]
    old = Waiting(oldest_push=1, older_pushes="restart")
    rules = [rule_for("async", 2, waiting=old), rule_for("hybrid", 2, 5, Waiting(max_staleness=0))]
    assert [rule.name for rule in rules] == ["async+oldest:1+restart", "hybrid:5+staleness:0"]


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), others=st.integers(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_other_workers_make_the_same_update_or_none(mode: str, workers: int, accumulate: int, others: int) -> None:
    workers = max(workers, accumulate) if mode == "adaptive" else workers
    rule = rule_for(mode, workers, None if mode == "async" else accumulate)
    same = rule.with_workers(others)
    if (mode == "sync" and rule.pushes % others) or (mode == "adaptive" and accumulate > others):
        assert same is None
    else:
        assert same is not None
        assert (same.pushes, type(same)) == (rule.pushes, type(rule))


def test_the_oldest_pull_is_that_of_the_worker_furthest_behind() -> None:
    assert Round(0, 7, [7, 3, 5]).oldest == 4
    assert Round(0, 7).oldest == 0


def test_a_mode_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'turbo' is not one of sync, async, hybrid, adaptive"):
        rule_for("turbo", 1, 1)
    for workers, accumulate in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="1 or more"):
            rule_for("sync", workers, accumulate)
