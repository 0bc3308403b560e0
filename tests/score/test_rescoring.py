from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.score.options import ScoringOptions
from nmt_async.score.rescoring import ranked, read_entries, rescore
from nmt_async.score.scorer import LineScorer
from nmt_async.translate.formats import Printed
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

CPU = torch.device("cpu")
LIST = [
    "0 ||| a dog ||| F0= -1.5 LM= -20 ||| -0.5",
    "0 ||| the dog ||| 0-0 1-1 ||| F0= -2.5 LM= -10 ||| -0.6",
    "2 |||  ||| F0= -0.1 LM= -1 ||| -0.1",
]


@pytest.fixture
def scorer(model, vocabulary):
    return LineScorer(model, vocabulary, vocabulary, ScoringOptions(), CPU)


def test_a_list_is_written_as_it_was_read():
    assert [str(entry) for entry in read_entries(LIST, "list")] == LIST


@given(st.lists(st.tuples(st.text("abAB_0", min_size=1), st.floats(-1e6, 1e6)), max_size=4))
def test_features_are_read_by_name(features):
    written = " ".join(f"{name}= {value!r}" for name, value in features)
    (entry,) = read_entries([f"0 ||| text ||| {written} ||| 1"], "list")
    assert entry.values() == dict(features)


def test_the_model_that_translated_finds_its_own_scores_again(model, vocabulary, scorer, sentences):
    translator = LineTranslator(model, vocabulary, vocabulary, DecodingOptions(beam_size=4), CPU, wanted=4)
    lines = [sentences[0], "", *sentences[1:20]]
    # A text is scored as it is encoded anew; what the search wrote with other subwords has another score.
    same = [
        line
        for number, translation in enumerate(translator.translate(lines), 1)
        for line, candidate in zip(Printed(n_best=True).lines(number, translation), translation.n_best, strict=True)
        if vocabulary.pieces(vocabulary.encode(candidate.text)[:-1]) == candidate.tokens
    ]
    assert len(same) > 20
    for entry in rescore(read_entries(same, "list"), iter(lines), scorer, "Again"):
        values = entry.values()
        assert values["Again"] == pytest.approx(values["F0"], abs=2e-4)


def test_scores_become_a_feature_and_everything_else_stays(scorer):
    sources = ["the cat", "not translated", "a bird"]
    found = list(rescore(read_entries(LIST, "list"), sources, scorer, "Score"))
    expected = [scored.score for scored in scorer.score([("the cat", "a dog"), ("the cat", "the dog"), ("a bird", "")])]
    for line, entry, score in zip(LIST, found, expected, strict=True):
        *before, last = line.split(" ||| ")
        assert str(entry) == " ||| ".join([*before[:-1], f"{before[-1]} Score= {score:.6f}", last])


def test_weights_rank_the_hypotheses_of_each_line_anew():
    entries = list(ranked(read_entries(LIST, "list"), {"LM": 0.1, "F0": 1.0}))
    assert [str(entry) for entry in entries] == [
        "0 ||| a dog ||| F0= -1.5 LM= -20 ||| -3.500000",
        "0 ||| the dog ||| 0-0 1-1 ||| F0= -2.5 LM= -10 ||| -3.500000",
        "2 |||  ||| F0= -0.1 LM= -1 ||| -0.200000",
    ]
    entries = list(ranked(read_entries(LIST, "list"), {"LM": 1.0}))
    assert [entry.text for entry in entries] == ["the dog", "a dog", ""]
    assert all(math.isclose(float(entry.score), entry.values()["LM"]) for entry in entries)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no list", "line 1 of list is not in the form NUMBER |||"),
        ("-1 ||| a ||| F0= 1 ||| 1", "line 1 of list is not in the form"),
        ("9" * 5000 + " ||| a ||| F0= 1 ||| 1", "line 1 of list is not in the form"),
        ("0 ||| a ||| F0 1 ||| 1", "'F0 1' are not features such as"),
        ("0 ||| a ||| F0= one ||| 1", "are not features such as"),
        ("0 ||| a ||| Score= 1 ||| 1", "has a feature Score already; give another --n-best-feature"),
        ("3 ||| a ||| F0= 1 ||| 1", "belongs to source line 3, counted from 0, but --source has 3 lines"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(scorer, line, message):
    with pytest.raises(UserError, match=r"^line 1 of list") as caught:
        list(rescore(read_entries([line], "list"), ["a", "b", "c"], scorer, "Score"))
    assert message in str(caught.value)


def test_a_list_that_is_not_sorted_and_an_unknown_weight_are_refused():
    with pytest.raises(
        UserError, match=r"line 2 of list belongs to source line 1 and comes after one of line 2; sort the list"
    ):
        list(read_entries(["2 ||| a ||| F0= 1 ||| 1", "1 ||| a ||| F0= 1 ||| 1"], "list"))
    with pytest.raises(UserError, match=r"line 1 of list has no feature 'X', which --weights names; it has F0, LM"):
        list(ranked(read_entries(LIST, "list"), {"X": 1.0}))
    with pytest.raises(UserError, match=r"line 1 of list: the weighted sum of 'F0= nan' is not a finite number"):
        list(ranked(read_entries(["0 ||| a ||| F0= nan ||| 1"], "list"), {"F0": 1.0}))
