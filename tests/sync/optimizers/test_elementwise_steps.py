"""Optimizers that treat each parameter by itself: beside torch's, beside their formulas, and by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmt_async.sync.optimizers import step
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings

pytestmark = pytest.mark.numeric

SIZE = 20
DECAYS = (0.0, 0.1)


def draws(steps: int, seed: int = 1) -> list[tuple[Tensor, float]]:
    """Gradients and learning rates."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(SIZE, generator=generator), 0.01 * number) for number in range(1, steps + 1)]


def stepped(gradients: Iterable[tuple[Tensor, float]], **settings: Any) -> Tensor:
    """Where an optimizer leads from a line of numbers; it does not clip."""
    parameters = torch.linspace(-1, 1, SIZE)
    optimizer = FlatOptimizer(parameters, OptimizerSettings(clip_norm=0.0, **settings))
    for gradient, rate in gradients:
        optimizer.step(parameters, gradient.clone(), 1, rate)
    return parameters


def by_torch(gradients: Iterable[tuple[Tensor, float]], make: Any, **settings: Any) -> Tensor:
    """Where one of torch's leads."""
    parameters = nn.Parameter(torch.linspace(-1, 1, SIZE))
    optimizer = make([parameters], lr=0.1, **settings)
    for gradient, rate in gradients:
        optimizer.param_groups[0]["lr"] = rate
        parameters.grad = gradient.clone()
        optimizer.step()
    return parameters.detach()


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", DECAYS)
def test_adamw_is_torchs(decay: float) -> None:
    ours = stepped(draws(6), name="adamw", beta1=0.8, beta2=0.95, epsilon=1e-6, weight_decay=decay)
    theirs = by_torch(draws(6), torch.optim.AdamW, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    assert_close(ours, theirs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(momentum: float, nesterov: bool) -> None:
    ours = stepped(draws(6), name="sgd", momentum=momentum, nesterov=nesterov)
    theirs = by_torch(draws(6), torch.optim.SGD, momentum=momentum, nesterov=nesterov and momentum > 0)
    assert_close(ours, theirs)


def test_two_steps_of_sgd_by_hand() -> None:
    # v: 2, 0.5·2 + 4 = 5; with Nesterov 2 + 0.5·2 = 3 and 4 + 0.5·5 = 6.5 are taken; λ shrinks by a tenth first
    parameters = torch.ones(1)
    optimizer = FlatOptimizer(
        parameters, OptimizerSettings(name="sgd", clip_norm=0.0, momentum=0.5, nesterov=True, weight_decay=1.0)
    )
    optimizer.step(parameters, torch.tensor([2.0]), 1, 0.1)
    assert parameters.item() == pytest.approx(0.9 - 0.3)
    optimizer.step(parameters, torch.tensor([4.0]), 1, 0.1)
    assert parameters.item() == pytest.approx(0.9 * 0.6 - 0.65)


@pytest.mark.parametrize("name", ["lion", "adan"])
def test_a_vector_that_is_taken_in_stretches_is_taken_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = stepped(draws(4), name=name, weight_decay=0.1)
    monkeypatch.setattr(step, "STRETCH", 7)
    assert_close(stepped(draws(4), name=name, weight_decay=0.1), at_once)


@pytest.mark.parametrize("decay", DECAYS)
def test_lion_is_its_formula(decay: float) -> None:
    expected, momentum = torch.linspace(-1, 1, SIZE), torch.zeros(SIZE)
    for gradient, rate in draws(6):
        expected -= rate * (torch.sign(0.7 * momentum + 0.3 * gradient) + decay * expected)
        momentum = 0.95 * momentum + 0.05 * gradient
    assert_close(stepped(draws(6), name="lion", lion_betas=(0.7, 0.95), weight_decay=decay), expected)


def test_two_steps_of_lion_by_hand() -> None:
    # The momentum is 0.1 · 3 = 0.3 after the first; 0.5 · 0.3 - 0.5 · 0.2 > 0: the second goes against its gradient.
    parameters = torch.ones(1)
    settings = OptimizerSettings(name="lion", clip_norm=0.0, lion_betas=(0.5, 0.9))
    optimizer = FlatOptimizer(parameters, settings)
    for gradient, expected in ((3.0, 0.9), (-0.2, 0.8)):
        optimizer.step(parameters, torch.tensor([gradient]), 1, 0.1)
        assert parameters.item() == pytest.approx(expected)


@pytest.mark.parametrize("decay", DECAYS)
def test_adan_is_its_formula(decay: float) -> None:
    one, two, three = betas = (0.9, 0.8, 0.95)
    expected, before = torch.linspace(-1, 1, SIZE), None
    first, change, second = torch.zeros(3, SIZE)
    for number, (gradient, rate) in enumerate(draws(6), start=1):
        difference = gradient - (gradient if before is None else before)
        first = one * first + (1 - one) * gradient
        change = two * change + (1 - two) * difference
        second = three * second + (1 - three) * (gradient + two * difference) ** 2
        ahead = first / (1 - one**number) + two * change / (1 - two**number)
        way = ahead / ((second / (1 - three**number)).sqrt() + 1e-8)
        expected = (expected - rate * way) / (1 + rate * decay)
        before = gradient
    assert_close(stepped(draws(6), name="adan", adan_betas=betas, weight_decay=decay), expected)


def test_two_steps_of_adan_by_hand() -> None:
    # First: 2 / 2. Then, all betas a half: m = 0.5 · 1 + 0.5 · 4 = 2.5, corrected by 3/4; v = 0.5 · 2 = 1, corrected by
    # 3/4, and halved; n = 0.5 · 2 + 0.5 · (4 + 0.5 · 2)² = 13.5, corrected by 3/4.
    parameters = torch.zeros(1)
    settings = OptimizerSettings(name="adan", clip_norm=0.0, adan_betas=(0.5, 0.5, 0.5))
    optimizer = FlatOptimizer(parameters, settings)
    optimizer.step(parameters, torch.tensor([2.0]), 1, 0.1)
    assert parameters.item() == pytest.approx(-0.1)
    optimizer.step(parameters, torch.tensor([4.0]), 1, 0.1)
    assert parameters.item() == pytest.approx(-0.1 - 0.1 * (2.5 + 0.5) / 0.75 / math.sqrt(13.5 / 0.75))
