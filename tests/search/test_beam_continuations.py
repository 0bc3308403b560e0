from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.search.beam import BLOCK, best_continuations


@given(
    sentences=st.integers(1, 3),
    beam=st.integers(1, 4),
    vocabulary=st.one_of(st.integers(2, 3 * BLOCK), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7])),
    count=st.integers(1, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_the_best_are_those_of_sorting_everything(sentences, beam, vocabulary, count, seed):
    generator = torch.Generator().manual_seed(seed)
    log_probabilities = torch.randn(sentences, beam, vocabulary, generator=generator, dtype=torch.float64)
    scores = torch.randn(sentences, beam, generator=generator, dtype=torch.float64)
    count = min(count, beam * vocabulary)
    values, parents, subwords = best_continuations(log_probabilities, scores, count)
    expected = (log_probabilities + scores[:, :, None]).view(sentences, -1).topk(count)
    assert torch.equal(values, expected.values)
    assert torch.equal(parents * vocabulary + subwords, expected.indices)
