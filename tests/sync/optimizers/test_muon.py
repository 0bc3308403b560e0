"""Muon: beside torch's, by its singular values, and what it takes for a matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix

pytestmark = pytest.mark.numeric

RATE = 0.01


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moved(vector: Tensor, matrices: list[Matrix], **settings: Any) -> Tensor:
    """What one step with the gradient ``vector`` adds to parameters that are 0, over minus the rate."""
    parameters = torch.zeros_like(vector)
    muon = FlatOptimizer(parameters, OptimizerSettings(name="muon", clip_norm=0.0, **settings), matrices)
    muon.step(parameters, vector.clone(), 1, RATE)
    return parameters / -RATE


def step_of(gradient: Tensor, **settings: Any) -> Tensor:
    """The same for one matrix (rows, columns) by itself, without the factor of its size."""
    matrix = Matrix(0, *gradient.shape, settings.pop("wide", False))
    return matrix.view(moved(gradient.flatten(), [matrix], **settings)) / (0.2 * math.sqrt(max(gradient.shape)))


@pytest.mark.parametrize("shape", [(32, 32), (24, 64), (64, 24), (8, 96)])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_its_steps_are_torchs_but_for_what_bfloat16_loses(shape: tuple[int, int], nesterov: bool, decay: float) -> None:
    matrix, theirs = Matrix(0, *shape), nn.Parameter(random(*shape))
    ours, start = theirs.detach().flatten().clone(), theirs.detach().clone()
    settings = OptimizerSettings(
        name="muon", clip_norm=0.0, momentum=0.9, nesterov=nesterov, weight_decay=decay
    )  # fmt: skip
    muon = FlatOptimizer(ours, settings, [matrix])
    reference = torch.optim.Muon(
        [theirs], lr=RATE, momentum=0.9, nesterov=nesterov, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
    )
    for seed in range(2, 6):
        gradient = random(*shape, seed=seed)
        theirs.grad = gradient.clone()
        reference.step()
        muon.step(ours, gradient.flatten(), 1, RATE)
    way = theirs.detach() - start
    assert float((matrix.view(ours) - theirs.detach()).norm() / way.norm()) < 0.02


@pytest.mark.parametrize("shape", [(32, 32), (40, 64), (16, 64), (4, 64), (64, 16)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int]) -> None:
    gradient = random(*shape)
    left, before, right = torch.linalg.svd(gradient, full_matrices=False)
    found = left.mT @ step_of(gradient) @ right.mT
    assert before.max() / before.min() > 1.4
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3
    torch.testing.assert_close(found, found.diagonal().diag(), rtol=0.0, atol=1e-4)


def test_small_singular_values_grow_too() -> None:
    left, _, right = torch.linalg.svd(random(16, 64), full_matrices=False)
    values = torch.logspace(0, -2, 16)
    found = torch.linalg.svdvals(step_of(left @ values.diag() @ right))
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_a_step_by_hand() -> None:
    # A diagonal matrix stays one: 3 and 4, over their norm 5, go through the polynomial five times.
    found = step_of(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    values = [0.6, 0.8]
    for _ in range(5):
        values = [3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5 for x in values]
    torch.testing.assert_close(found, torch.tensor(values).diag(), rtol=1e-5, atol=1e-6)


def test_matrices_that_stand_beneath_each_other_count_by_themselves() -> None:
    parts = [random(16, 16, seed=seed) * seed for seed in (1, 2, 3)]
    matrices = [Matrix(256 * number, 16, 16) for number in range(3)]
    together = moved(torch.cat([part.flatten() for part in parts]), matrices)
    for part, matrix in zip(parts, matrices, strict=True):
        alone = step_of(part) * 0.2 * math.sqrt(16)
        torch.testing.assert_close(matrix.view(together), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "wide", "rows", "size"), [
    ((32, 32), False, 8, 8), ((32, 32), True, 8, 8), ((48, 32), False, 20, 16), ((16, 48), False, 12, 12),
    ((48, 16), False, 12, 12), ((30, 20), False, 16, 15), ((32, 32), False, 64, 32),
])  # fmt: skip
def test_a_block_is_made_orthogonal_by_itself(shape: tuple[int, int], wide: bool, rows: int, size: int) -> None:
    """Out of rows, or out of columns where there are more of these or the matrix is wide."""
    gradient = random(*shape)
    found = step_of(gradient, muon_rows=rows, wide=wide) * math.sqrt(max(shape))
    across = wide or shape[1] > shape[0]
    blocks = zip(*(each.split(size, dim=int(across)) for each in (found, gradient)), strict=True)
    for block, part in blocks:
        torch.testing.assert_close(block, step_of(part.contiguous()) * math.sqrt(max(part.shape)), rtol=1e-4, atol=1e-5)


def test_what_is_no_hidden_matrix_moves_as_adam_moves_it() -> None:
    matrices = [Matrix(16, 8, 8), Matrix(112, 4, 16)]
    rest = torch.ones(256, dtype=torch.bool)
    for matrix in matrices:
        rest[matrix.begin : matrix.end] = False
    constants = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-5, "clip_norm": 0.0, "weight_decay": 0.1}
    mixed, plain = random(256, seed=9), random(256, seed=9)
    muon = FlatOptimizer(mixed, OptimizerSettings(name="muon", **constants), matrices)
    adam = FlatOptimizer(plain, OptimizerSettings(name="adamw", **constants))
    for seed in range(4):
        for optimizer, parameters in ((muon, mixed), (adam, plain)):
            optimizer.step(parameters, random(256, seed=seed), 1, 0.1)
    assert torch.equal(mixed[rest], plain[rest])
    assert not torch.isclose(mixed[~rest], plain[~rest]).any()


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(step_of(torch.zeros(8, 32)), torch.zeros(8, 32))
