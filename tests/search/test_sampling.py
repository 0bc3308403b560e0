"""Translations drawn at random."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from definitions import KINDS, allowed, decode, next_log_probabilities, random_model, random_sources, searches
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.search.options import SamplingMethod
from nmt_async.search.sampling import Search, draw
from nmt_async.text.vocabulary import END

pytestmark = pytest.mark.numeric

FULL = SamplingMethod()
SHORT = Search(beam_size=3, max_length_factor=1.0, extra_length=4, wanted=3, output_sampling=FULL)


def shares(method, probabilities, draws=2000):
    """How often each subword is drawn where chances are spread evenly."""
    rows = torch.tensor([probabilities]).log().expand(draws, -1)
    drawn = draw(method, rows, (torch.arange(draws).double() + 0.5) / draws)
    return [float((drawn == word).double().mean()) for word in range(len(probabilities))]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("full", [0.1, 0.4, 0.0, 0.2, 0.3]),
        ("full 0.5", [0.01 / 0.3, 0.16 / 0.3, 0.0, 0.04 / 0.3, 0.09 / 0.3]),
        ("topk 2", [0.0, 4 / 7, 0.0, 0.0, 3 / 7]),
        ("topk 2 0.5", [0.0, 16 / 25, 0.0, 0.0, 9 / 25]),
        ("topk 99", [0.1, 0.4, 0.0, 0.2, 0.3]),
        ("nucleus 0.6", [0.0, 4 / 7, 0.0, 0.0, 3 / 7]),
        ("nucleus 0.8", [0.0, 4 / 9, 0.0, 2 / 9, 3 / 9]),
        ("nucleus 0.6 0.5", [0.0, 16 / 25, 0.0, 0.0, 9 / 25]),
        ("nucleus 1", [0.1, 0.4, 0.0, 0.2, 0.3]),
    ],
)
def test_a_subword_is_drawn_as_often_as_its_probability_says(method, expected):
    assert shares(SamplingMethod.parse(method), [0.1, 0.4, 0.0, 0.2, 0.3]) == pytest.approx(expected, abs=1e-3)


@given(seed=st.integers(0, 2**63 - 1), kind=st.sampled_from(sorted(KINDS)), wanted=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_a_sample_depends_on_seed_and_sentence_and_on_nothing_else(seed, kind, wanted):
    model = random_model(3, 40, eagerness=1.0, kind=kind)
    sources = random_sources(7, 40, [3, 8, 1, 5])
    search = dataclasses.replace(SHORT, seed=seed)
    together = [{found.ids for found in hypotheses} for hypotheses in decode(model, sources, search)]
    for source, expected in zip(reversed(sources), reversed(together), strict=True):
        assert {found.ids for found in decode(model, [source], search)[0]} == expected
    fewer_or_more = dataclasses.replace(search, wanted=wanted, max_length_factor=9.0, extra_length=90)
    for few, many in zip(decode(model, sources, fewer_or_more), together, strict=True):
        fitting = {ids for ids in many if len(ids) < 4}
        assert not fitting - {found.ids for found in few} or wanted < 3


def test_the_coldest_temperature_draws_the_likeliest():
    assert shares(SamplingMethod.parse("full 1e-320"), [0.1, 0.4, 0.0, 0.2, 0.3]) == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_another_seed_and_another_number_give_another_sample():
    model = random_model(3, 40)
    (source,) = random_sources(7, 40, [8])
    drawn = [decode(model, [source], dataclasses.replace(SHORT, seed=seed))[0] for seed in range(5)]
    assert len({found.ids for hypotheses in drawn for found in hypotheses}) > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["topk 1", "nucleus 0.000001", "full 0.0001"])
def test_where_one_subword_can_be_drawn_sampling_is_greedy_search(method, kind):
    model = random_model(3, 40, eagerness=1.0, kind=kind)
    sources = random_sources(7, 40, [3, 8, 1])
    search = dataclasses.replace(SHORT, wanted=1, output_sampling=SamplingMethod.parse(method))
    greedy = dataclasses.replace(SHORT, beam_size=1, wanted=1, output_sampling=None)
    for (drawn,), (found,) in zip(decode(model, sources, search), decode(model, sources, greedy), strict=True):
        assert drawn.ids == found.ids
        assert drawn.score == pytest.approx(found.score, abs=1e-9)


@given(
    seed=st.integers(0, 1000),
    search=searches(
        beam_size=st.just(3), wanted=st.just(3), max_length_factor=st.just(1.0), extra_length=st.just(4),
        output_sampling=st.sampled_from(list(map(SamplingMethod.parse, ["full 2", "topk 4", "nucleus 0.7"]))),
    ),
    forced=st.lists(st.integers(1, 8), max_size=4),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_samples_keep_the_constraints_and_have_the_models_scores(seed, search, forced):
    model = random_model(seed, 9)
    sources = random_sources(seed, 9, [4, 2])
    found = decode(model, sources, search, [[], forced])
    for source, prefix, hypotheses in zip(sources, ([], forced), found, strict=True):
        assert hypotheses == sorted(hypotheses, key=lambda hypothesis: -hypothesis.normalised)
        for hypothesis in hypotheses:
            if hypothesis.score == -math.inf:
                continue
            words = (*hypothesis.ids, END)
            assert all(allowed(search, source, words[:place], word, prefix) for place, word in enumerate(words))
            scores = [
                float(next_log_probabilities(model, source, [words[:place]])[0, word])
                for place, word in enumerate(words)
            ]
            assert hypothesis.token_scores == pytest.approx(scores, abs=1e-9)
            penalty = search.word_penalty * len(words)
            assert hypothesis.normalised == pytest.approx((sum(scores) - penalty) / len(words) ** search.normalize)


@pytest.mark.parametrize("text", ["full", "full 0.8", "topk 7", "topk:7:1.5", "nucleus,0.9", "nucleus 0.5 0.25"])
def test_a_method_is_written_as_it_is_read(text):
    method = SamplingMethod.parse(text)
    assert SamplingMethod.parse(str(method)) == method
    assert len({str(SamplingMethod.parse(other)) for other in (text, "full 3", "topk 3", "nucleus 0.3")}) == 4


@pytest.mark.parametrize(
    "text", ["", "half", "full 0", "full 1 2", "topk 0.5", "topk -1", "nucleus 2", "full nan", "topk inf"]
)
def test_what_is_no_method_is_refused(text):
    with pytest.raises(UserError, match=r"full \[TEMPERATURE\], topk K"):
        SamplingMethod.parse(text)
