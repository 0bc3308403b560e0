"""What each mode answers: which pushes count, when they become an update, who must wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync.rules import Standing, rule_for


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


@given(workers=st.integers(1, 9), accumulate=st.integers(1, 9), own=st.integers(0, 99), stale=st.integers(0, 99))
def test_in_hybrid_an_update_sums_n_pushes_of_any_age_and_nobody_waits(
    workers: int, accumulate: int, own: int, stale: int
) -> None:
    rule = rule_for("hybrid", workers, accumulate)
    assert not rule.ordered
    assert rule.pushes == accumulate
    assert rule.counts(stale)
    assert rule.may_start(Standing(own, own))


def test_async_is_hybrid_with_one_push_an_update() -> None:
    assert rule_for("async", 4, 1) == rule_for("hybrid", 4, 1)
    with pytest.raises(ValueError, match="choose hybrid"):
        rule_for("async", 4, 2)


def test_a_mode_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'turbo' is not one of sync, async, hybrid"):
        rule_for("turbo", 1, 1)
    for workers, accumulate in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="1 or more"):
            rule_for("sync", workers, accumulate)
