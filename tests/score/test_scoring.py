from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelOptions
from nmt_async.score.options import ScoringOptions
from nmt_async.score.scorer import LineScorer, Scored
from nmt_async.text.vocabulary import END
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


OTHERS = {
    "ssru": {"decoder_autoreg": "ssru", "dim_emb": 16, "dim_ffn": 24, "heads": 2},
    "rnn": {"model": "rnn", "dim_emb": 8, "dim_rnn": 12},
}


@pytest.fixture(scope="session", params=["transformer", *OTHERS])
def either(request, model, vocabulary):
    """Each kind of model, tiny and untrained, that ends soon and says something else for each line."""
    if request.param == "transformer":
        return model
    options = ModelOptions(preset="tiny", dec_depth=2, **OTHERS[request.param])
    model = build_model(options.configuration(vocabulary.size, vocabulary.size, joint=True), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.output_weight.mul_(6.0 if request.param == "rnn" else 2.0)
        model.output_bias.copy_(torch.randn(vocabulary.size, generator=generator))
        model.output_bias[END] += 1.0
    return model


@pytest.fixture
def scorer(model, vocabulary):
    """Makes a scorer from options; its warnings go to the list `said`."""

    def make(said=None, in_pieces=False, of=model, **options):
        warn = [].append if said is None else said.append
        return LineScorer(of, vocabulary, vocabulary, ScoringOptions(**options), CPU, in_pieces, warn=warn)

    return make


@pytest.mark.parametrize("penalties", [{"normalize": 0.0}, {"normalize": 0.6}, {"normalize": 1.0, "word_penalty": 0.3}])
def test_what_translate_printed_is_what_score_finds(either, scorer, vocabulary, sentences, penalties):
    options = DecodingOptions(beam_size=3, **penalties)
    translator = LineTranslator(either, vocabulary, vocabulary, options, CPU, wanted=3)
    lines = [*sentences[:30], "", "🦆 ."]
    pairs, found = [], []
    for line, translation in zip(lines, translator.translate(lines), strict=True):
        for candidate in translation.n_best:
            pairs.append((line, " ".join(candidate.tokens)))
            found.append(candidate)
    scored = list(scorer(in_pieces=True, of=either, **penalties).score(pairs))
    assert len({candidate.text for candidate in found}) > 30
    for candidate, other in zip(found, scored, strict=True):
        assert other.tokens == candidate.tokens
        assert other.score == pytest.approx(candidate.score, abs=1e-4)
        assert other.normalised == pytest.approx(candidate.normalised, abs=1e-4)
        assert other.token_scores == pytest.approx(candidate.token_scores, abs=1e-4)


def test_a_score_is_the_sum_of_its_subwords_and_the_end_marks(scorer):
    (scored,) = scorer(normalize=2.0).score([("the dog", "a cat")])
    assert len(scored.token_scores) == len(scored.tokens) + 1
    assert scored.score == pytest.approx(sum(scored.token_scores))
    assert scored.normalised == pytest.approx(scored.score / len(scored.token_scores) ** 2)
    assert scored.cross_entropy == pytest.approx(-scored.score / len(scored.token_scores))


def test_probabilities_of_all_next_subwords_sum_to_one(scorer, vocabulary):
    pieces = vocabulary.pieces(range(2, vocabulary.size))
    scored = list(scorer(in_pieces=True).score([("the dog", piece) for piece in (*pieces, "no-such-subword")]))
    ended = list(scorer(in_pieces=True).score([("the dog", "")]))
    assert len(ended[0].token_scores) == 1
    assert math.exp(ended[0].score) + sum(math.exp(one.token_scores[0]) for one in scored) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
@settings(max_examples=30)
def test_batches_and_order_change_no_score(model, vocabulary, pairs):
    one = LineScorer(model, vocabulary, vocabulary, ScoringOptions(mini_batch=1), CPU)
    all_at_once = list(LineScorer(model, vocabulary, vocabulary, ScoringOptions(), CPU).score(pairs))
    for scored, alone in zip(all_at_once, one.score(iter(pairs)), strict=True):
        assert scored.score == pytest.approx(alone.score, abs=1e-4)
        assert scored.tokens == alone.tokens


def test_limits_of_a_batch_change_no_score(scorer, sentences):
    pairs = list(zip(sentences[:40], sentences[40:80], strict=True))
    expected = [scored.score for scored in scorer().score(pairs)]
    assert [scored.score for scored in scorer(mini_batch_words=20).score(iter(pairs))] == pytest.approx(expected)
    assert [scored.score for scored in scorer(mini_batch=3, maxi_batch=2).score(pairs)] == pytest.approx(expected)


def test_nothing_for_nothing_is_certain_and_other_empty_sides_are_computed(scorer):
    nothing, for_nothing, for_something = scorer().score([("", " "), ("", "the dog"), ("the dog", "")])
    assert nothing == Scored(0.0, 0.0, (), ())
    assert for_nothing.score < 0.0
    assert len(for_something.token_scores) == 1


def test_a_side_that_is_too_long_is_cut_and_named(scorer):
    said: list[str] = []
    list(scorer(said, max_length=4).score([("the dog", "a"), ("dog " * 9, "cat " * 30)]))
    assert said == [
        "the target of line 2 has 31 subwords and is cut to 16.",
        "the source of line 2 has 10 subwords and is cut to 4.",
    ]


def test_a_model_in_training_is_scored_without_dropout_and_goes_on_training(scorer, model):
    pair = [("the dog", "a cat")]
    expected = list(scorer().score(pair))
    model.train()
    try:
        assert list(scorer().score(pair)) == expected
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize("options", [{"normalize": -1.0}, {"max_length": 1}, {"mini_batch": 0}, {"threads": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=f"--{next(iter(options)).replace('_', '-')}: "):
        ScoringOptions(**options)
