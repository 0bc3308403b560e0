"""How many operations Muon's step takes in products of matrices: by hand, and as torch counts them while it works."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OPTIMIZERS, OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix

SIZE = 4096
SQUARE = Matrix(16, 32, 32)
LOW = Matrix(SQUARE.end, 8, 64)
HIGH = Matrix(LOW.end, 48, 16)


def of_baddbmm(_: Any, one: Any, other: Any, out_shape: Any = None, **__: Any) -> int:
    """Torch counts it only where it makes a new tensor."""
    assert tuple(out_shape) == (one[0], one[1], other[2])
    return 2 * math.prod(one) * int(other[2])


def optimizer(matrices: list[Matrix], **settings: int) -> FlatOptimizer:
    return FlatOptimizer(torch.zeros(SIZE), OptimizerSettings(name="muon", **settings), matrices)


def test_a_square_matrix_takes_three_products_a_step() -> None:
    assert optimizer([SQUARE], muon_steps=5).operations == 5 * 3 * (2 * 32**3)


def test_a_flat_block_iterates_on_its_gram_matrix() -> None:
    # its Gram matrix and the last product; the first step squares the Gram matrix, and makes the next one of it (2);
    # the second squares that, and multiplies what is made so far
    by_hand = 2 * (2 * 8 * 8 * 64) + (3 + 2) * (2 * 8**3)
    assert optimizer([LOW], muon_steps=2).operations == by_hand


def test_blocks_count_by_themselves() -> None:
    whole, halves = optimizer([SQUARE], muon_steps=1), optimizer([SQUARE], muon_steps=1, muon_rows=16)
    assert whole.operations == 3 * 2 * 32**3
    assert halves.operations == 2 * (2 * (2 * 16 * 16 * 32) + 2 * 16**3)


@pytest.mark.parametrize("rows", [0, 16, 12])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_it_is_what_torch_counts(rows: int, steps: int) -> None:
    muon = optimizer([SQUARE, LOW, HIGH], muon_steps=steps, muon_rows=rows)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: of_baddbmm}) as counted:
        muon.step(torch.zeros(SIZE), torch.randn(SIZE, generator=torch.Generator().manual_seed(1)), 1, 0.1)
    assert muon.operations == counted.get_total_flops()


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"muon"}))
def test_all_others_multiply_no_matrices(name: str) -> None:
    assert FlatOptimizer(torch.zeros(SIZE), OptimizerSettings(name=name), [SQUARE]).operations == 0
