"""The server's step: clipping, Adam, moving average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings

pytestmark = pytest.mark.numeric

SIZE = 20


def draws(steps: int, seed: int) -> list[tuple[Tensor, int, float]]:
    """Summed gradients, their tokens, and learning rates."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(SIZE, generator=generator) * 30, int(torch.randint(1, 50, (1,), generator=generator)), 0.01 * n)
        for n in range(1, steps + 1)
    ]


@given(clip=st.sampled_from([0.0, 0.5, 3.0, 100.0]), seed=st.integers(0, 1000))
def test_a_step_is_torchs_adam_on_the_clipped_gradient_per_token(clip: float, seed: int) -> None:
    start = torch.linspace(-1, 1, SIZE)
    parameters = start.clone()
    ours = FlatOptimizer(parameters, OptimizerSettings(0.8, 0.95, 1e-6, clip))
    theirs = nn.Parameter(start.clone())
    adam = torch.optim.Adam([theirs], betas=(0.8, 0.95), eps=1e-6)
    for total, tokens, rate in draws(5, seed):
        theirs.grad = total / tokens
        norm = nn.utils.clip_grad_norm_([theirs], clip or float("inf"))
        adam.param_groups[0]["lr"] = rate
        adam.step()
        assert ours.step(parameters, total, tokens, rate) == pytest.approx(float(norm), rel=1e-5)
    torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-4, atol=1e-5)


def test_the_new_parameters_may_lie_in_another_buffer_each_time() -> None:
    still, moving = torch.ones(SIZE), torch.ones(2, SIZE)
    one, other = (FlatOptimizer(start, OptimizerSettings()) for start in (still, moving[0]))
    for step, (total, tokens, rate) in enumerate(draws(4, seed=1), start=1):
        one.step(still, total.clone(), tokens, rate)
        before = moving[(step - 1) % 2].clone()
        moving[step % 2].copy_(before)
        other.step(moving[step % 2], total, tokens, rate)
        assert torch.equal(moving[(step - 1) % 2], before)
        assert torch.equal(moving[step % 2], still)


def test_the_average_weighs_the_newest_more_at_first() -> None:
    parameters = torch.zeros(SIZE)
    optimizer = FlatOptimizer(parameters, OptimizerSettings(smoothing=0.3))
    expected = parameters.clone()
    for step, (total, tokens, rate) in enumerate(draws(40, seed=2), start=1):
        optimizer.step(parameters, total, tokens, rate)
        weight = max(0.3, 1 - (step + 1) / (step + 10))  # Marian's updateAvgParams
        expected = (1 - weight) * expected + weight * parameters
        assert optimizer.average is not None
        torch.testing.assert_close(optimizer.average, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.001])
@pytest.mark.parametrize("split", [0, 3])
def test_going_on_from_its_state_is_bit_equal_to_never_having_stopped(smoothing: float, split: int) -> None:
    whole, parts = torch.ones(SIZE), torch.ones(SIZE)
    settings = OptimizerSettings(smoothing=smoothing)
    one, other = FlatOptimizer(whole, settings), FlatOptimizer(parts, settings)
    for step, (total, tokens, rate) in enumerate(draws(6, seed=3)):
        if step == split:
            stored = {name: tensor.clone() for name, tensor in other.state().items()}
            parts = parts.clone()
            other = FlatOptimizer(torch.full((SIZE,), 9.0), settings)
            other.restore(stored)
        norms = one.step(whole, total.clone(), tokens, rate), other.step(parts, total.clone(), tokens, rate)
        assert norms[0] == norms[1]
    assert torch.equal(whole, parts)
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in one.state().items())


def test_a_state_that_lacks_a_tensor_is_not_taken() -> None:
    optimizer = FlatOptimizer(torch.ones(SIZE), OptimizerSettings(smoothing=0.1))
    stored = dict(optimizer.state())
    del stored["average"]
    with pytest.raises(KeyError):
        optimizer.restore(stored)
