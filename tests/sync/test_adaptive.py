"""Adaptive: the number of pushes that an update waits for grows with the square root of what the loss has fallen by."""

from __future__ import annotations

import json
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync import Adaptive, Push, Standing, Update, Waiting, rule_for
from nmt_async.sync.rules.adaptive import WINDOW
from nmt_async.text.plan import BatchId


def update(*losses: float, tokens: int = 4) -> Update:
    """An update of a push for each of these losses per token."""
    pushes = tuple(
        Push(worker, BatchId(1, worker), 0, tokens, loss=loss * tokens) for worker, loss in enumerate(losses)
    )
    return Update(1, pushes, (0,) * len(pushes), 0.1, 1.0)


def test_a_case_by_hand() -> None:
    """K_0 = 2, N = 6. The running mean takes in each update by its pushes until it holds `WINDOW` of them."""
    rule = rule_for("adaptive", 6, 6, Waiting(accumulate_first=2)).after(update(8.0, 8.0))
    assert (rule.losses.first, rule.losses.mean, rule.losses.pushes, rule.pushes) == (8.0, 8.0, 2, 2)
    rule = rule.after(update(2.0, 2.0))  # the mean is 5: 2 sqrt(8 / 5) = 2.53
    assert (rule.losses.mean, rule.pushes) == (5.0, 3)
    rule = rule.after(update(1.0, 1.0, 1.0, 1.0))  # 5 + 4/8 (1 - 5) = 3: 2 sqrt(8 / 3) = 3.27
    assert (rule.losses.mean, rule.losses.pushes, rule.pushes) == (3.0, 8, 3)
    rule = rule.after(update(*[0.5] * 8))  # 3 + 8/16 (0.5 - 3) = 1.75: 2 sqrt(8 / 1.75) = 4.28
    assert (rule.losses.mean, rule.pushes) == (1.75, 4)
    rule = rule.after(update(*[0.25] * 784))  # more than the window: they alone are the mean: 2 sqrt(32) = 11.3
    assert (rule.losses.mean, rule.pushes) == (0.25, 6)
    assert rule.after(update(99.0)).pushes == 6, "it never falls"


def test_the_mean_forgets_what_came_more_than_a_window_ago() -> None:
    rule = rule_for("adaptive", 2, 2, Waiting(accumulate_first=2)).after(update(8.0))
    for _ in range(20 * WINDOW):
        rule = rule.after(update(2.0))
    assert rule.losses.mean == pytest.approx(2.0, abs=1e-3)


@given(losses=st.lists(st.floats(0.0, 12.0), min_size=1, max_size=30), first=st.integers(1, 5), last=st.integers(0, 5))
def test_an_update_waits_for_more_and_more_up_to_n(losses: list[float], first: int, last: int) -> None:
    rule = rule_for("adaptive", first + last, first + last, Waiting(accumulate_first=first))
    seen = [rule.pushes]
    for loss in losses:
        rule = rule.after(update(loss))
        seen.append(rule.pushes)
        again = rule_for("adaptive", first + last, first + last, Waiting(accumulate_first=first))
        assert again.restored(json.loads(json.dumps(rule.state()))) == rule
    assert seen == sorted(seen)
    assert first <= seen[0] <= seen[-1] <= first + last
    mean = rule.losses.mean
    if losses[0] > 0 and mean > 0:
        assert seen[-1] >= min(first + last, round(first * sqrt(losses[0] / mean)))


def test_a_worker_waits_for_the_update_that_holds_its_push() -> None:
    rule = rule_for("adaptive", 4)
    assert rule.waits_for_update
    assert not rule.may_start(Standing(0, 9, pushed=1))
    assert rule.may_start(Standing(1, 9, pushed=0)), "one whose push was refused begins anew"


@pytest.mark.parametrize(("workers", "first", "stale"), [(4, 1, 3.0), (4, 2, 1.0), (4, 4, 0.0), (6, 4, 0.5)])
def test_each_worker_whose_push_is_not_in_an_update_becomes_one_older(workers: int, first: int, stale: float) -> None:
    assert rule_for("adaptive", workers, None, Waiting(accumulate_first=first)).staleness(workers) == stale


def test_its_short_name_and_defaults() -> None:
    assert rule_for("adaptive", 4) == Adaptive(4, 1)
    waiting = Waiting(accumulate_first=2, oldest_push=1, older_pushes="restart")
    rule = rule_for("adaptive", 4, 3, waiting)
    assert (rule.name, rule.restarts, rule.counts(1), rule.counts(2)) == (
        "adaptive:3+first:2+oldest:1+restart", True, True, False,
    )  # fmt: skip
    assert rule.after(update(1.0)).name == rule.name


@pytest.mark.parametrize(("accumulate", "waiting", "why"), [
    (5, Waiting(), "5 of them need as many workers"),
    (3, Waiting(accumulate_first=4), "1 to 3 pushes at first, not for 4"),
    (3, Waiting(accumulate_first=0), "not for 0"),
    (3, Waiting(older_pushes="restart"), "give the oldest push, too"),
    (3, Waiting(max_staleness=1), "max staleness means nothing in adaptive"),
])  # fmt: skip
def test_what_it_cannot_be_is_refused_with_the_reason(accumulate: int, waiting: Waiting, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rule_for("adaptive", 4, accumulate, waiting)


def test_with_fewer_workers_than_it_waits_for_it_cannot_go_on() -> None:
    rule = rule_for("adaptive", 4, 3)
    assert rule.with_workers(3) == rule
    assert rule.with_workers(2) is None


@pytest.mark.parametrize("state", [{"waits_for": 9, "losses": None}, {"waits_for": 0, "losses": None}, {}])
def test_a_state_that_it_cannot_have_left_is_refused(state: dict) -> None:
    with pytest.raises((ValueError, LookupError)):
        rule_for("adaptive", 4).restored(state)
