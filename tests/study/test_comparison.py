"""Conditions compared at equal tokens and by what a quality costs them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import MILLION, condition, learning, made

from nmt_async.errors import UserError
from nmt_async.study.comparison import QUANTITIES, Difference, Pair, Ratio, compare
from nmt_async.study.conditions import Condition, by_condition, common_target, targets_of

SLOW = [("tokens to quality", 1.3), ("updates to quality", 1.3), ("seconds to quality", 0.65)]


def slower(name: str, factor: float, *seeds: float, **options: object) -> Condition:
    """Learns what others do in ``factor`` times as many tokens."""
    return Condition(
        name,
        tuple(
            made(name, number, curve=lambda million, more=more: learning(million / factor) + more, **options)  # type: ignore[arg-type]
            for number, more in enumerate(seeds or (0.0,), start=1)
        ),
    )


def test_results_are_grouped_by_condition_and_sorted_by_seed() -> None:
    grouped = by_condition([made("b", 2), made("a", 3), made("b", 1)])
    assert {name: one.seeds for name, one in grouped.items()} == {"b": (1, 2), "a": (3,)}


def test_results_on_different_data_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="different data"):
        by_condition([made("a"), made("b", data="9999")])


def test_two_results_of_one_seed_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"two results of a\.seed1"):
        by_condition([made("a"), made("a")])


def test_a_difference_at_the_end_is_of_the_means_over_seeds() -> None:
    found = compare("final cross-entropy", Pair(condition("async", 0.3, 0.5), condition("sync", 0.0, 0.1)))
    assert isinstance(found, Difference)
    assert found.value == pytest.approx(0.35)
    assert found.low < 0.35 < found.high
    assert (found.over, found.seeds, found.tokens) == ("seeds and sentences", {"async": 2, "sync": 2}, 4 * MILLION)


def test_runs_of_different_length_are_compared_where_the_shortest_ends() -> None:
    long, short = (
        condition("a", tokens=(MILLION, 2 * MILLION, 4 * MILLION)),
        condition("b", tokens=(MILLION, 2 * MILLION)),
    )
    found = compare("final cross-entropy", Pair(long, short))
    assert isinstance(found, Difference)
    assert (found.value, found.tokens) == (pytest.approx(0), 2 * MILLION)


def test_a_difference_can_be_read_early() -> None:
    early = Pair(slower("hybrid", 1.3), condition("sync"), tokens=MILLION)
    found = compare("final cross-entropy", early)
    assert found.value == pytest.approx(learning(1 / 1.3) - learning(1))
    late = compare("final cross-entropy", Pair(early.compared, early.against))
    closed = compare("final cross-entropy", early, Pair(early.compared, early.against))
    assert closed.value == pytest.approx(found.value - late.value)


def test_a_place_without_validations_around_it_is_refused() -> None:
    with pytest.raises(UserError, match="no validations around 9,000,000 tokens"):
        compare("final cross-entropy", Pair(condition("a"), condition("b"), tokens=9 * MILLION))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_condition_against_itself_is_no_different(quantity: str) -> None:
    one = condition("a", 0.0, 0.2, 0.3, bleu=True, staleness={3: 4})
    found = compare(quantity, Pair(one, one))
    expected = 1 if isinstance(found, Ratio) else 0
    assert [found.value, found.low, found.high] == pytest.approx([expected] * 3, abs=1e-9)


@pytest.mark.parametrize(("quantity", "ratio"), SLOW)
def test_a_curve_drawn_out_by_a_factor_costs_that_factor(quantity: str, ratio: float) -> None:
    dense = tuple(range(100_000, 5 * MILLION, 50_000))
    hybrid = slower("hybrid", 1.3, tokens=dense, tokens_per_second=2000)
    found = compare(quantity, Pair(hybrid, condition("sync", tokens=dense)))
    assert isinstance(found, Ratio)
    assert found.value == pytest.approx(ratio, rel=0.01)
    assert found.low == pytest.approx(ratio, rel=0.02)
    assert found.high == pytest.approx(ratio, rel=0.02)
    assert found.reached == {"hybrid": 1, "sync": 1}
    assert found.target == pytest.approx(hybrid.results[0].points[-1].cross_entropy)


@settings(max_examples=20)
@given(st.floats(0.2, 5), st.floats(0, 0.3))
def test_a_clock_k_times_as_fast_makes_a_ratio_of_k(factor: float, offset: float) -> None:
    slow, quick = condition("a", offset), condition("b", offset, tokens_per_second=1000 * factor)
    found = compare("seconds to quality", Pair(slow, quick))
    assert [found.value, found.low, found.high] == pytest.approx([factor] * 3)


@settings(max_examples=20)
@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_ratio_the_other_way_round_is_the_inverse(one: float, other: float) -> None:
    a, b = condition("a", one, one + 0.05), condition("b", other, other + 0.02)
    there, back = compare("tokens to quality", Pair(a, b)), compare("tokens to quality", Pair(b, a))
    assert [1 / back.value, 1 / back.high, 1 / back.low] == pytest.approx([there.value, there.low, there.high])


def test_the_target_is_the_worse_of_what_both_reach_with_all_seeds() -> None:
    good, bad = condition("good", 0.0, 0.1), condition("bad", 0.2, 0.4)
    found = compare("tokens to quality", Pair(bad, good))
    assert isinstance(found, Ratio)
    assert found.target == pytest.approx(learning(4) + 0.4) == pytest.approx(common_target([good, bad]))
    assert found.reached == {"good": 2, "bad": 2}


def test_a_target_that_one_does_not_reach_is_a_value() -> None:
    good, bad = condition("good", 0.0, 0.0), condition("bad", 1.0, 1.1)
    found = compare("tokens to quality", Pair(bad, good), target=2.5)
    assert isinstance(found, Ratio)
    assert [found.value, found.low, found.high] == [math.inf] * 3
    assert found.reached == {"good": 2, "bad": 0}
    assert compare("tokens to quality", Pair(good, bad), target=2.5).high == 0


def test_a_diverged_run_is_the_worst_and_not_missing() -> None:
    learned = condition("sync", 0.0, 0.1)
    diverged = Condition(
        "async", (made("async", 1, diverged="not finite"), made("async", 2, tokens=(), diverged="at once"))
    )
    assert diverged.diverged == 2
    worse = compare("final cross-entropy", Pair(diverged, learned))
    assert [worse.value, worse.low, worse.high] == [math.inf] * 3
    assert compare("tokens to quality", Pair(diverged, learned)).low == math.inf
    assert compare("tokens to quality", Pair(learned, diverged)).high == 0
    assert math.isnan(compare("final cross-entropy", Pair(diverged, diverged)).value)


def test_a_difference_of_differences_takes_off_what_the_other_pair_shows() -> None:
    pairs = (
        Pair(condition("async", 0.5, 0.6), condition("sync", 0, 0.1)),
        Pair(condition("rnn async", 0.3), condition("rnn sync", 0.1)),
    )
    found = compare("final cross-entropy", *pairs)
    assert found.value == pytest.approx(0.5 - 0.2)
    assert set(found.seeds) == {"async", "sync", "rnn async", "rnn sync"}


def test_a_ratio_of_ratios_divides() -> None:
    slow, quick = condition("slow", tokens_per_second=500), condition("quick", tokens_per_second=2000)
    found = compare("tokens per second", Pair(quick, slow), Pair(condition("a", tokens_per_second=1500), slow))
    assert found.value == pytest.approx(4 / 3)


def test_staleness_of_one_condition_is_its_mean_over_seeds() -> None:
    found = compare("staleness", Pair(condition("async", 0, 0, staleness={2: 1, 4: 1})))
    assert (found.value, found.low, found.high, found.over) == (3, 3, 3, "seeds only")


def test_bleu_is_better_when_higher_and_has_no_draws_of_sentences() -> None:
    found = compare("final BLEU", Pair(condition("a", 0.0, bleu=True), condition("b", 0.5, bleu=True)))
    assert found.value == pytest.approx(4)
    assert found.over == "nothing"


def test_a_run_without_the_metric_is_named() -> None:
    with pytest.raises(UserError, match=r"a\.seed1 has no validation with BLEU"):
        compare("final BLEU", Pair(condition("a")))


@pytest.mark.parametrize("quantity", ["seconds to quality", "tokens per second", "waiting share"])
def test_seconds_by_different_clocks_are_not_compared(quantity: str) -> None:
    with pytest.raises(UserError, match="different clocks"):
        compare(quantity, Pair(condition("a"), condition("b", profile="uneven")))
    compare("tokens to quality", Pair(condition("a"), condition("b", profile="uneven")))


def test_targets_for_a_table_are_round_and_reached_by_one_at_least() -> None:
    conditions = [condition("a", 0.0, 0.02), condition("b", 0.5)]
    assert learning(4) + 0.02 == pytest.approx(2.127, abs=0.001)
    assert targets_of(conditions) == [2.15, 2.2, 2.3, 2.5, 2.9]
    assert targets_of([Condition("c", (made(diverged="x"),))]) == []
