"""What hypotheses are ranked by, and what no continuation can be ranked above."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.search.penalties import Penalties

PENALTIES = st.builds(Penalties, st.sampled_from([0.0, 0.6, 1.0, 2.5]), st.sampled_from([0.0, 0.4, -0.4, -6.0, 3.0]))


@given(PENALTIES, st.floats(-50.0, 0.0), st.integers(1, 40))
def test_the_penalty_for_each_subword_is_subtracted_before_the_length_divides(penalties, score, length):
    (ranked,) = penalties.ranked(torch.tensor([score], dtype=torch.float64), length).tolist()
    assert ranked == pytest.approx((score - length * penalties.word_penalty) / length**penalties.normalize)


@given(PENALTIES, st.floats(-50.0, 0.0), st.integers(1, 12), st.integers(0, 12))
def test_no_continuation_is_ranked_above_the_bound_and_that_of_one_is_its_rank(penalties, score, length, more):
    bound = float(penalties.bound(torch.tensor([score]).double(), length, torch.tensor([length + more])))
    as_good = torch.tensor([score]).double()
    reached = [float(penalties.ranked(as_good, each)) for each in range(length, length + more + 1)]
    assert max(reached) <= bound + 1e-9
    if more == 0:
        assert reached == pytest.approx([bound])
