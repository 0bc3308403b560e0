"""When a run first reached a quality, and how good it was at a given place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_results import MILLION, made

from nmt_async.study.conditions import Curve, is_diverged


def curve(
    at: list[float], values: list[float], draws: list[list[float]] | None = None, diverged: bool = False
) -> Curve:
    table = np.array(draws, dtype=float) if draws else np.empty((len(at), 0))
    return Curve(np.array(at, dtype=float), np.array(values, dtype=float), table, diverged)


def test_half_of_the_way_in_quality_is_half_of_the_way_in_the_logarithm_of_tokens() -> None:
    assert curve([100, 400], [4, 2]).reach(3) == pytest.approx(200)
    assert curve([100, 400], [4, 2]).value_at(200) == pytest.approx(3)


def test_a_quality_at_a_validation_is_reached_there() -> None:
    learned = curve([100, 200, 400], [4, 3, 2])
    assert [learned.reach(value) for value in (4, 3, 2)] == pytest.approx([100, 200, 400])


def test_a_quality_that_is_not_reached_is_a_value() -> None:
    assert curve([100, 400], [4, 2]).reach(1.9) == math.inf
    assert curve([], []).reach(5) == math.inf


def test_the_first_crossing_counts_even_if_the_run_gets_worse_again() -> None:
    assert curve([1, 2, 4, 8], [4, 2, 5, 1]).reach(3) == pytest.approx(math.sqrt(2))


def test_a_quality_passed_before_the_first_validation_is_reached_at_it() -> None:
    assert curve([100, 400], [4, 2]).reach(4.5) == 100


def test_a_validation_before_training_has_no_logarithm_and_counts_in_a_straight_line() -> None:
    learned = curve([0, 100], [9, 5])
    assert learned.reach(7) == pytest.approx(50)
    assert learned.value_at(25) == pytest.approx(8)


def test_each_draw_crosses_on_its_own_and_at_its_own_target() -> None:
    learned = curve([100, 400], [4, 2], [[4, 5], [2, 3]])
    assert learned.reach_on_draws(3.0) == pytest.approx([200, 400])
    assert learned.reach_on_draws(np.array([2.0, 4.0])) == pytest.approx([400, 200])
    assert learned.draws_at(200) == pytest.approx([3, 4])
    assert learned.best_on_draws() == pytest.approx([2, 3])


def test_a_diverged_run_is_the_worst_whatever_it_had_reached() -> None:
    learned = curve([100, 400], [4, 2], [[4], [2]], diverged=True)
    assert [learned.best, learned.reach(5), learned.value_at(100)] == [math.inf] * 3
    assert learned.draws_at(100) == [math.inf]
    assert learned.reach_on_draws(5.0) == [math.inf]


def test_what_is_not_finite_is_the_worst_until_it_is_finite_again() -> None:
    result = made(
        curve=lambda million: math.nan if million < 1 else 3.0, tokens=(500_000, MILLION, 2 * MILLION), draws=2
    )
    learned = Curve.of(result)
    assert learned.reach(3) == MILLION
    assert learned.value_at(700_000) == math.inf
    assert learned.reach_on_draws(10.0) == pytest.approx([MILLION, MILLION])


def test_a_run_diverged_if_it_says_so_or_ends_with_no_number() -> None:
    assert is_diverged(made(diverged="the loss is not finite"))
    assert is_diverged(made(curve=lambda _: math.nan))
    assert not is_diverged(made(curve=lambda million: math.inf if million < 1 else 3.0))
    assert not is_diverged(made(tokens=()))


def test_the_axis_is_tokens_updates_or_seconds() -> None:
    result = made(tokens=(500_000, MILLION), tokens_per_second=100)
    assert list(Curve.of(result, "tokens").at) == [500_000, MILLION]
    assert list(Curve.of(result, "updates").at) == [1, 2]
    assert list(Curve.of(result, "seconds").at) == [5_000, 10_000]


def test_bleu_is_kept_with_its_sign_turned_and_without_draws() -> None:
    learned = Curve.of(made(bleu=True, curve=lambda _: 2.5, tokens=(MILLION,)), metric="bleu")
    assert list(learned.values) == [-20]
    assert learned.draws.shape == (1, 0)
    assert not len(Curve.of(made(bleu=False), metric="bleu").at)


rising = st.lists(st.integers(1, 10**7), min_size=2, max_size=8, unique=True).map(sorted)


@given(rising, st.lists(st.floats(1, 8), min_size=8, max_size=8), st.floats(0.01, 100), st.floats(1, 8))
def test_a_run_that_takes_k_times_as_long_reaches_a_quality_k_times_as_late(
    at: list[int], values: list[float], factor: float, target: float
) -> None:
    quick, slow = curve(at, values[: len(at)]), curve([factor * each for each in at], values[: len(at)])
    assume(math.isfinite(quick.reach(target)))
    assert slow.reach(target) == pytest.approx(factor * quick.reach(target))


@given(rising, st.lists(st.floats(1, 8), min_size=8, max_size=8), st.floats(1, 8), st.floats(0, 2))
def test_a_better_quality_is_never_reached_sooner(
    at: list[int], values: list[float], target: float, better: float
) -> None:
    learned = curve(at, values[: len(at)])
    assert learned.reach(target - better) >= learned.reach(target) * (1 - 1e-12)


@given(rising, st.lists(st.floats(1, 8), min_size=8, max_size=8), st.floats(0, 1))
def test_where_a_quality_is_reached_the_curve_has_it(at: list[int], values: list[float], share: float) -> None:
    values = values[: len(at)]
    learned, best = curve(at, values), min(values)
    target = best + share * (values[0] - best)
    place = learned.reach(target)
    assert learned.value_at(place) == pytest.approx(target, abs=1e-6)
