"""Several models that translate as one."""

from __future__ import annotations

import pytest
from definitions import (
    KINDS,
    assert_same,
    decode,
    mixed_log_probabilities,
    random_model,
    random_sources,
    reference_beam_search,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.checkpoints.model_folder import save_model
from nmt_async.errors import UserError
from nmt_async.score.scorer import token_scores
from nmt_async.search.ensemble import Ensemble, load_models
from nmt_async.search.options import Search, Weights
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import END, train_vocabulary

pytestmark = pytest.mark.numeric

SEARCH = Search(beam_size=4, normalize=0.6, max_length_factor=1.0, extra_length=3, wanted=4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_itself_is_that_model(kind):
    model = random_model(3, 150, eagerness=2.0, kind=kind)
    sources = random_sources(7, 150, [3, 14, 1, 8])
    alone = decode(model, sources, SEARCH)
    assert decode(Ensemble([model, model], [0.5, 0.5]), sources, SEARCH) == alone
    assert decode(Ensemble([model], [1.0]), sources, SEARCH) == alone
    for found, hypotheses in zip(decode(Ensemble([model] * 3, [1.0] * 3), sources, SEARCH), alone, strict=True):
        assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in hypotheses]
        assert [each.score / 3 for each in found] == pytest.approx([each.score for each in hypotheses])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_scores_as_it_did_in_the_search(kind):
    models, weights = [random_model(seed, 30, 1.0, kind) for seed in (1, 2)], [0.7, 1.1]
    sources = random_sources(7, 30, [6, 14, 1, 8])
    ensemble = Ensemble(models, weights)
    for source, hypotheses in zip(sources, decode(ensemble, sources, SEARCH), strict=True):
        for hypothesis in hypotheses:
            (scores,) = token_scores(ensemble, Batch(*pad([source.numpy()]), *pad([[*hypothesis.ids, END]])))
            assert scores.tolist() == pytest.approx(hypothesis.token_scores, abs=1e-5)


@given(
    seed=st.integers(0, 1000),
    weights=st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.7]), min_size=2, max_size=2).filter(any),
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    beam_size=st.integers(1, 5),
)
@settings(max_examples=20, deadline=None)
def test_log_probabilities_are_mixed_with_the_weights(seed, weights, kinds, beam_size):
    models = [random_model(seed + number, 30, 1.0, kind) for number, kind in enumerate(kinds)]
    sources = random_sources(seed, 30, [4, 1, 3])
    search = Search(beam_size=beam_size, normalize=0.6, max_length_factor=1.0, extra_length=3, wanted=beam_size)
    following = mixed_log_probabilities(models, weights)
    for found, source in zip(decode(Ensemble(models, weights), sources, search), sources, strict=True):
        assert_same(found, reference_beam_search(following, source, search))


@pytest.fixture
def saved(model, vocabulary, tmp_path):
    """Writes a model folder; its vocabularies unless others are given."""

    def write(name, source=vocabulary, target=vocabulary):
        folder = tmp_path / name
        save_model(folder, model.configuration, dict(model.named_parameters()), source.path, target.path)
        return folder

    return write


def test_one_folder_is_a_model_and_several_are_an_ensemble(saved):
    first, second = saved("first"), saved("second")
    assert not isinstance(load_models([first]).model, Ensemble)
    assert load_models([first, second]).model.weights == (0.5, 0.5)
    assert load_models([first, second], Weights.parse("0.7,0.3")).model.weights == (0.7, 0.3)
    assert load_models([first], Weights((2.0,))).model.weights == (2.0,)


@pytest.mark.parametrize("side", ["source", "target"])
def test_models_of_different_vocabularies_are_refused(side, saved, vocabulary, sentences, tmp_path):
    other = train_vocabulary(sentences[:200], vocabulary.size, "bpe", tmp_path / "other.model")
    folders = [saved("first"), saved("second", **{side: other})]
    with pytest.raises(UserError, match=f"first and .*second have different {side} vocabularies"):
        load_models(folders)


def test_as_many_weights_as_models_are_needed(saved):
    with pytest.raises(UserError, match=r"--weights: 2 weights for 1 model; give one for each"):
        load_models([saved("first")], Weights.parse("0.7 0.3"))


@pytest.mark.parametrize("text", ["", "a", "0.5,", "0,0", "-1,2", "nan", "inf 1"])
def test_what_are_no_weights_is_refused(text):
    with pytest.raises(UserError, match="are not weights"):
        Weights.parse(text)


def test_weights_are_written_as_they_are_read():
    assert Weights.parse(str(Weights.parse("0.7, 0.3 1"))) == Weights((0.7, 0.3, 1.0))
