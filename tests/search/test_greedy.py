"""Greedy search; that it finds what a beam of one finds is in `test_beam.py`."""

import math

import pytest
import torch
from definitions import KINDS, random_model, random_sources

from nmt_async.search import Ensemble, Search
from nmt_async.search.greedy import greedy_search, likeliest
from nmt_async.text.batch import pad

CONSTRAINTS = {
    "free": {},
    "nothing twice": {"no_repeat_ngram_size": 1},
    "long": {"min_target_length": 12},
    "nowhere to go": {"no_repeat_ngram_size": 1, "min_target_length": 30},
    "aligned": {"alignment": True},
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("kind", [*KINDS, "ensemble"])
def test_without_scores_the_same_is_found(kind, constraint):
    if kind == "ensemble":
        model = Ensemble([random_model(4, 12), random_model(5, 12)], [0.4, 0.6])
    else:
        model = random_model(4, 12, kind=kind)
    given = pad([source.numpy() for source in random_sources(4, 12, [3, 9, 1, 6, 2])])
    search = Search(beam_size=1, max_target_length=30, **CONSTRAINTS[constraint])
    with torch.inference_mode():
        scored, unscored = (greedy_search(model, *given, search, None, with_scores) for with_scores in (True, False))
    for (a,), (b,) in zip(scored, unscored, strict=True):
        assert (a.ids, a.alignment) == (b.ids, b.alignment)
        assert math.isnan(b.score)
        assert math.isnan(b.normalised)
        assert b.token_scores == ()
    if constraint == "nowhere to go":
        assert {best.ids for (best,) in unscored} == {()}
    else:
        assert any(best.ids for (best,) in unscored)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_several_largest_the_first_is_the_likeliest(dtype):
    rows = torch.tensor([[1.0, 3.0, 3.0], [-math.inf, -math.inf, -2.0], [-math.inf] * 3], dtype=dtype)
    assert likeliest(rows).tolist() == [[1], [2], [0]]
