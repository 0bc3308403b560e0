"""Intervals over seeds and sentences together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.study import bootstrap
from nmt_async.study.bootstrap import DRAWS, Sample, contrast, draw_weights, resampled_cross_entropy


def all_weights(sentences: int) -> np.ndarray:
    """Of all draws: (draws, sentences)."""
    return np.concatenate(list(draw_weights(sentences)))


def sample(name: str, values: list[float], noise: np.ndarray | None = None) -> Sample:
    """Seeds with these values, each moved by the same noise on the draws."""
    each = np.array(values, dtype=float)
    return Sample(name, each, each[:, None] + noise[None] if noise is not None else np.empty((len(each), 0)))


def drawn(spread: float, number: int = 200, seed: int = 0) -> np.ndarray:
    return spread * np.random.default_rng(seed).normal(size=number)


def test_a_difference_is_of_the_means_over_seeds() -> None:
    assert contrast([(1, sample("a", [1, 2, 6])), (-1, sample("b", [1, 1]))]).value == 2


def test_what_moves_all_conditions_alike_on_a_draw_leaves_no_doubt_about_their_difference() -> None:
    noise = drawn(1.0)
    found = contrast([(1, sample("a", [3.0], noise)), (-1, sample("b", [2.0], noise))])
    assert [found.value, found.low, found.high] == pytest.approx([1, 1, 1])
    assert found.over == "sentences only"


def test_one_mean_with_one_seed_has_the_interval_of_the_sentences() -> None:
    noise = drawn(1.0, 2000)
    found = contrast([(1, sample("a", [3.0], noise))])
    assert [found.low, found.high] == pytest.approx(list(3 + np.quantile(noise, [0.025, 0.975])), abs=0.02)


def test_sentences_alone_are_drawn_where_one_condition_has_one_seed() -> None:
    noise = drawn(0.0)
    found = contrast([(1, sample("a", [3.0], noise)), (-1, sample("b", [1.0, 3.0], noise))])
    assert [found.low, found.high] == pytest.approx([1, 1])
    assert found.over == "sentences only"


def test_seeds_alone_are_drawn_where_no_sentences_were_kept() -> None:
    found = contrast([(1, sample("a", [1.0, 3.0]))])
    # One of two seeds is drawn; Student's t with one degree of freedom is 12.706 / 1.960 as wide.
    assert [found.low, found.high] == pytest.approx([2 - 12.706 / 1.96, 2 + 12.706 / 1.96])
    assert found.over == "seeds only"


def test_one_seed_without_sentences_has_no_interval() -> None:
    found = contrast([(1, sample("a", [1.0]))])
    assert [found.value, found.low, found.high, found.over] == [1, -math.inf, math.inf, "nothing"]


def test_draws_of_different_numbers_cannot_be_paired() -> None:
    terms = [(1.0, sample("a", [1, 2], drawn(1, 200))), (-1.0, sample("b", [1, 2], drawn(1, 100)))]
    assert contrast(terms).over == "seeds only"


def test_the_same_samples_give_the_same_interval_whatever_else_is_asked() -> None:
    terms = [(1.0, sample("a", [1, 2, 4], drawn(1))), (-1.0, sample("b", [1, 2, 3], drawn(1)))]
    before = contrast(terms)
    contrast([(1.0, sample("c", [9, 2], drawn(3)))])
    assert contrast(terms) == before
    other_way = contrast([(-weight, each) for weight, each in reversed(terms)])
    assert [-other_way.high, -other_way.low] == pytest.approx([before.low, before.high], abs=1e-12)


finite = st.lists(st.floats(-10, 10), min_size=1, max_size=5)


@given(finite, st.floats(0, 2))
def test_a_condition_against_itself_differs_by_nothing(values: list[float], spread: float) -> None:
    one = sample("a", values, drawn(spread))
    found = contrast([(1, one), (-1, one)])
    assert [found.value, found.low, found.high] == pytest.approx([0, 0, 0], abs=1e-9)


@given(finite, finite, st.floats(-5, 5))
def test_moving_a_condition_moves_the_interval(one: list[float], other: list[float], by: float) -> None:
    noise = drawn(0.5)
    here = contrast([(1, sample("a", one, noise)), (-1, sample("b", other, noise))])
    there = contrast([(1, sample("a", [each + by for each in one], noise)), (-1, sample("b", other, noise))])
    assert [there.value - by, there.low - by, there.high - by] == pytest.approx([here.value, here.low, here.high])


@given(finite, finite)
def test_the_value_lies_in_its_interval_where_draws_are_centred(one: list[float], other: list[float]) -> None:
    noise = np.concatenate([drawn(1, 100), -drawn(1, 100)])
    found = contrast([(1, sample("a", one, noise)), (-1, sample("b", other))])
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_more_seeds_of_the_same_spread_and_closer_draws_make_a_narrower_interval() -> None:
    def width(seeds: int, spread: float) -> float:
        values = [1.0, 2.0] * (seeds // 2)
        found = contrast([(1, sample("a", values, drawn(spread)))])
        return found.high - found.low

    assert width(8, 0.1) < width(4, 0.1) < width(2, 0.1)
    assert width(4, 0.1) < width(4, 3.0)


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.83), (3, 0.88), (5, 0.90)])
def test_nearly_as_many_intervals_hold_the_truth_as_they_say(seeds: int, least: float) -> None:
    generator = np.random.default_rng(seeds)
    held = 0
    for number in range(200):
        one, other = (sample(f"{name}{number}", list(generator.normal(size=seeds))) for name in "ab")
        found = contrast([(1, one), (-1, other)])
        held += found.low <= 0 <= found.high
    assert held / 200 >= least


def test_a_diverged_seed_leaves_the_interval_open_on_the_worse_side() -> None:
    noise = drawn(0.01)
    found = contrast([(1, sample("a", [3.0, 3.1, math.inf], noise)), (-1, sample("b", [2.0, 2.1, 2.2], noise))])
    assert found.value == found.high == math.inf
    assert found.low < 2


def test_when_all_seeds_of_one_side_diverged_there_is_no_doubt_which_is_worse() -> None:
    found = contrast([(1, sample("a", [math.inf, math.inf])), (-1, sample("b", [2.0, 2.1]))])
    assert found.low == found.high == math.inf


def test_between_two_diverged_conditions_nothing_is_known() -> None:
    found = contrast([(1, sample("a", [math.inf, math.inf])), (-1, sample("b", [math.inf, math.inf]))])
    assert math.isnan(found.value)
    assert [found.low, found.high] == [-math.inf, math.inf]


@given(st.integers(1, 300))
def test_a_draw_has_as_many_sentences_as_there_are(sentences: int) -> None:
    weights = all_weights(sentences)
    assert weights.shape == (DRAWS, sentences)
    assert (weights.sum(axis=1) == sentences).all()


def test_the_draws_are_the_same_every_time_and_others_for_other_sets() -> None:
    np.testing.assert_array_equal(all_weights(50), all_weights(50))
    assert not np.array_equal(all_weights(50)[:, :20], all_weights(20))


def test_draws_made_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, tokens = np.linspace(1.0, 9.0, 30), np.arange(1.0, 31.0)
    together = resampled_cross_entropy(losses, tokens)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 70)
    assert np.allclose(resampled_cross_entropy(losses, tokens), together, rtol=1e-12)


def test_every_sentence_is_drawn_about_once() -> None:
    assert all_weights(100).mean(axis=0) == pytest.approx(np.ones(100), abs=0.3)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.integers(1, 50)), min_size=1, max_size=30))
def test_a_draw_lies_between_the_best_and_the_worst_sentence(pairs: list[tuple[float, int]]) -> None:
    losses = np.array([loss for loss, _ in pairs])
    tokens = np.array([count for _, count in pairs])
    drawn = resampled_cross_entropy(losses, tokens)
    assert drawn.shape == (DRAWS,)
    assert drawn.min() >= (losses / tokens).min() - 1e-9
    assert drawn.max() <= (losses / tokens).max() + 1e-9


def test_the_draws_spread_as_the_mean_of_so_many_sentences_does() -> None:
    losses = np.random.default_rng(0).normal(30, 10, size=400)
    drawn = resampled_cross_entropy(losses, np.full(400, 10))
    assert drawn.mean() == pytest.approx(losses.mean() / 10, abs=0.01)
    assert drawn.std() == pytest.approx(losses.std() / 10 / np.sqrt(400), rel=0.2)


def test_long_sentences_count_by_their_tokens() -> None:
    losses, tokens = np.array([10.0, 900.0]), np.array([10, 300])
    both = all_weights(2)[:, 0] == 1
    assert resampled_cross_entropy(losses, tokens)[both] == pytest.approx(910 / 310)


def test_a_loss_added_to_every_token_moves_every_draw_by_it() -> None:
    losses, tokens = np.array([10.0, 20.0, 5.0]), np.array([4, 7, 3])
    moved = resampled_cross_entropy(losses + 0.5 * tokens, tokens)
    assert moved == pytest.approx(resampled_cross_entropy(losses, tokens) + 0.5)
