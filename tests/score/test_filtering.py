from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.model.build import build_model
from nmt_async.score.filtering import UNPAIRED, best_share, dual_score, dual_scores
from nmt_async.score.options import ScoringOptions
from nmt_async.score.scorer import LineScorer

ENTROPIES = st.floats(0.0, 50.0)
SHARES = st.floats(0.01, 1.0)


@given(ENTROPIES, ENTROPIES)
def test_a_pair_is_better_the_more_certain_both_models_are_and_the_more_they_agree(forward, backward):
    score = dual_score(forward, backward)
    assert 0.0 < score <= 1.0
    assert score == dual_score(backward, forward)
    assert score <= dual_score(min(forward, backward), min(forward, backward))
    assert score == pytest.approx(math.exp(-(abs(forward - backward) + 0.5 * (forward + backward))))


def test_scores_are_of_both_directions_and_nothing_pairs_with_nothing(model, vocabulary, sentences):
    there = LineScorer(model, vocabulary, vocabulary, ScoringOptions(mini_batch=4, maxi_batch=2), torch.device("cpu"))
    other = build_model(model.configuration, seed=5)
    back = LineScorer(other, vocabulary, vocabulary, ScoringOptions(), torch.device("cpu"))
    pairs = [*zip(sentences[:20], sentences[20:40], strict=True), ("", "a"), ("a", " "), ("", "")]
    found = list(dual_scores(iter(pairs), there, back))
    assert found[-3:] == [UNPAIRED] * 3
    for (source, target), score in zip(pairs[:-3], found[:-3], strict=True):
        (forward,), (backward,) = there.score([(source, target)]), back.score([(target, source)])
        assert score.forward == pytest.approx(forward.cross_entropy, rel=1e-4)
        assert score.backward == pytest.approx(backward.cross_entropy, rel=1e-4)
        assert score.score == pytest.approx(dual_score(score.forward, score.backward))


@given(st.lists(st.floats(0.0, 1.0), max_size=40), SHARES)
def test_the_best_share_is_kept(values, share):
    scores = np.array(values)
    kept = best_share(scores, share)
    wanted = round(share * len(values))
    assert kept.sum() == min(wanted, (scores > 0).sum())
    if kept.any() and not kept.all():
        assert scores[kept].min() >= scores[~kept].max()


def test_of_equal_pairs_the_earlier_are_kept():
    assert best_share(np.array([0.5, 0.7, 0.5, 0.5, 0.0]), 0.6).tolist() == [True, True, True, False, False]
