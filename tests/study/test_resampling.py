"""The draws of validation sentences are the same in every run, and say how far a cross-entropy can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.study import resampling
from nmt_async.study.resampling import DRAWS, draw_weights, resampled_cross_entropy


@given(st.integers(1, 300))
def test_a_draw_has_as_many_sentences_as_there_are(sentences: int) -> None:
    weights = draw_weights(sentences)
    assert weights.shape == (DRAWS, sentences)
    assert (weights.sum(axis=1) == sentences).all()


def test_the_draws_are_the_same_every_time_and_others_for_other_sets() -> None:
    np.testing.assert_array_equal(draw_weights(50), draw_weights(50))
    assert not np.array_equal(draw_weights(50)[:, :20], draw_weights(20))


def test_draws_made_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, tokens = np.linspace(1.0, 9.0, 30), np.arange(1.0, 31.0)
    together = resampled_cross_entropy(losses, tokens)
    monkeypatch.setattr(resampling, "AT_ONCE", 70)
    assert np.allclose(resampled_cross_entropy(losses, tokens), together, rtol=1e-12)


def test_every_sentence_is_drawn_about_once() -> None:
    assert draw_weights(100).mean(axis=0) == pytest.approx(np.ones(100), abs=0.3)


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
    both = draw_weights(2)[:, 0] == 1
    assert resampled_cross_entropy(losses, tokens)[both] == pytest.approx(910 / 310)


def test_a_loss_added_to_every_token_moves_every_draw_by_it() -> None:
    losses, tokens = np.array([10.0, 20.0, 5.0]), np.array([4, 7, 3])
    moved = resampled_cross_entropy(losses + 0.5 * tokens, tokens)
    assert moved == pytest.approx(resampled_cross_entropy(losses, tokens) + 0.5)
