from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nmt_async.model.loss import smoothed_cross_entropy

pytestmark = pytest.mark.numeric


@given(
    tokens=st.integers(1, 8),
    vocabulary=st.integers(2, 30),
    smoothing=st.sampled_from([0.0, 0.1, 0.3]),
    scale=st.sampled_from([0.1, 1.0, 50.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_are_torchs_cross_entropy_with_label_smoothing(tokens, vocabulary, smoothing, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    ours, torchs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = smoothed_cross_entropy(ours, targets, smoothing)
    expected = F.cross_entropy(torchs, targets, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, expected)
    (loss * 0.5).backward()
    (expected * 0.5).backward()
    torch.testing.assert_close(ours.grad, torchs.grad)
