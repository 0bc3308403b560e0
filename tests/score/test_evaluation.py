from __future__ import annotations

import pytest
import sacrebleu

from nmt_async.errors import UserError
from nmt_async.score.evaluation import corpus_scores

REFERENCES = ["the dog sees the red cat", "a bird runs in the garden", "", "never in the big house"] * 5
HYPOTHESES = ["the dog sees the big cat", "a bird runs in a garden", "", "never in the house"] * 5


def test_scores_are_sacrebleus():
    bleu, chrf, ter = corpus_scores(HYPOTHESES, REFERENCES)
    assert bleu.score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert chrf.score == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert ter.score == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    assert "tok:13a" in bleu.signature
    assert bleu.mean is None


def test_a_translation_equal_to_its_reference_is_perfect():
    bleu, chrf, ter = corpus_scores(REFERENCES, REFERENCES)
    assert (bleu.score, chrf.score, ter.score) == pytest.approx((100.0, 100.0, 0.0))


def test_intervals_are_the_same_each_time_and_hold_the_score():
    first, second = (corpus_scores(HYPOTHESES, REFERENCES, bootstrap=100) for _ in range(2))
    assert first == second
    for score in first:
        assert abs(score.score - score.mean) <= score.half_width
        assert "bs:100|seed:12345" in score.signature


def test_only_the_metrics_asked_for_are_computed():
    assert [score.name for score in corpus_scores(HYPOTHESES, REFERENCES, ["chrF"])] == ["chrF"]


def test_lines_that_do_not_pair_up_are_refused():
    with pytest.raises(UserError, match=r"19 lines .* 20"):
        corpus_scores(HYPOTHESES[1:], REFERENCES)
    with pytest.raises(UserError, match="no lines"):
        corpus_scores([], [])
