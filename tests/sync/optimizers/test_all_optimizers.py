"""What holds for every optimizer: gaps stay zero, and its state is all that it remembers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OPTIMIZERS, OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix

pytestmark = pytest.mark.numeric

SIZE = 512
MATRICES = [Matrix(32, 8, 9), Matrix(112, 12, 4), Matrix(160, 12, 4), Matrix(224, 6, 30, wide=True)]
EMBEDDING = (416, 500)
SETTINGS = [
    *(OptimizerSettings(name=name, weight_decay=0.1 * (name != "adam")) for name in OPTIMIZERS),
    OptimizerSettings(name="muon", muon_rows=4, muon_steps=3),
    OptimizerSettings(name="sgd", momentum=0.0, nesterov=False),
]


def gradient(seed: int) -> Tensor:
    """Zero in the gaps."""
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    return vector * inside()


def inside() -> Tensor:
    """Where parameters are, and not gaps."""
    found = torch.zeros(SIZE, dtype=torch.bool)
    for begin, end in [*((matrix.begin, matrix.end) for matrix in MATRICES), EMBEDDING]:
        found[begin:end] = True
    return found


def called(settings: OptimizerSettings) -> str:
    return f"{settings.name}{settings.muon_rows or ''}{'' if settings.momentum else ' without momentum'}"


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_gaps_stay_zero_and_all_else_moves(settings: OptimizerSettings) -> None:
    before = torch.ones(SIZE) * inside()
    parameters = before.clone()
    optimizer = FlatOptimizer(parameters, settings, MATRICES)
    for seed in range(3):
        optimizer.step(parameters, gradient(seed), 5, 0.1)
    assert not parameters[~inside()].any()
    assert (parameters != before)[inside()].all()
    for name, tensor in optimizer.state().items():
        if len(tensor.shape) and len(tensor) == SIZE:
            assert not tensor[~inside()].any(), name


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
@pytest.mark.parametrize("split", [0, 1, 3])
def test_going_on_from_its_state_is_bit_equal_to_never_having_stopped(settings: OptimizerSettings, split: int) -> None:
    whole, parts = torch.ones(SIZE), torch.ones(SIZE)
    one, other = FlatOptimizer(whole, settings, MATRICES), FlatOptimizer(parts, settings, MATRICES)
    for seed in range(5):
        if seed == split:
            stored = {name: tensor.clone() for name, tensor in other.state().items()}
            parts = parts.clone()
            other = FlatOptimizer(torch.full((SIZE,), 9.0), settings, MATRICES)
            other.restore(stored)
        one.step(whole, gradient(seed), 3, 0.1)
        other.step(parts, gradient(seed), 3, 0.1)
    assert torch.equal(whole, parts)
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in one.state().items())


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_the_new_parameters_may_lie_in_another_buffer_each_time(settings: OptimizerSettings) -> None:
    still, moving = torch.ones(SIZE), torch.ones(2, SIZE)
    one, other = FlatOptimizer(still, settings, MATRICES), FlatOptimizer(moving[0], settings, MATRICES)
    for seed in range(4):
        one.step(still, gradient(seed), 3, 0.1)
        moving[(seed + 1) % 2].copy_(moving[seed % 2])
        other.step(moving[(seed + 1) % 2], gradient(seed), 3, 0.1)
        assert torch.equal(moving[(seed + 1) % 2], still)
