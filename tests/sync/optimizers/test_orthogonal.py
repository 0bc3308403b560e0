"""Nearly orthogonal blocks: both ways give what the definition gives, and singular values end where they should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt_async.sync.optimizers.orthogonal import BEST, JORDAN, LEAST, gram_of, inverse_roots, orthogonal, polynomials

pytestmark = pytest.mark.numeric

STEPS = [1, 2, 3, 4, 5, 7]
SHAPES = [(16, 64), (64, 16), (12, 16), (16, 16), (1, 8)]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def by_definition(blocks: Tensor, steps: int) -> Tensor:
    """Singular values through the polynomials, in float64."""
    left, values, right = torch.linalg.svd(blocks.double(), full_matrices=False)
    bound = (values**2).sum(1) ** 0.5 if steps >= 5 else (values**8).sum(1) ** 0.125
    values = values / bound[:, None]
    for a, b, c in polynomials(steps):
        values = a * values + b * values**3 + c * values**5
    return (left @ torch.diag_embed(values) @ right).float()


def on_its_gram_matrix(blocks: Tensor, steps: int) -> Tensor:
    side = min(blocks.shape[1:])
    gram, *work = torch.empty(5, len(blocks), side, side)
    root = inverse_roots(gram_of(blocks, out=gram), steps, work)
    return root @ blocks if blocks.shape[1] <= blocks.shape[2] else blocks @ root


def by_products(blocks: Tensor, steps: int) -> Tensor:
    side = min(blocks.shape[1:])
    work = [torch.empty_like(blocks) for _ in range(2)] + [torch.empty(len(blocks), side, side) for _ in range(2)]
    return orthogonal(blocks, steps, work)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("way", [on_its_gram_matrix, by_products])
def test_singular_values_go_through_the_polynomials(way, shape: tuple[int, int], steps: int) -> None:
    blocks = random(3, *shape) * torch.tensor([1.0, 1e-3, 1e3]).view(3, 1, 1)
    torch.testing.assert_close(way(blocks, steps), by_definition(blocks, steps), rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("way", [on_its_gram_matrix, by_products])
@pytest.mark.parametrize("steps", STEPS)
def test_zeros_stay_zeros_and_a_block_of_one_direction_keeps_it(way, steps: int) -> None:
    blocks = torch.stack([torch.zeros(4, 16), random(4, 1) @ random(1, 16)])
    found = way(blocks, steps)
    assert not found[0].any()
    torch.testing.assert_close(found[1], by_definition(blocks[1:], steps)[0], rtol=1e-3, atol=1e-4)


def through(values: Tensor, steps: int) -> Tensor:
    for a, b, c in polynomials(steps):
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize("steps", BEST)
def test_fewer_steps_bring_all_from_the_least_on_to_a_fifth_of_one(steps: int) -> None:
    values = torch.logspace(torch.log10(torch.tensor(LEAST[steps])).item(), 0.0, 100_001, dtype=torch.float64)
    found = through(values, steps)
    assert found.min() == pytest.approx(0.8, abs=1e-3)
    assert found.max() == pytest.approx(1.2, abs=1e-3)
    assert through(torch.tensor([0.9 * LEAST[steps]]), steps).item() < 0.79


@pytest.mark.parametrize("steps", BEST)
def test_each_polynomial_is_the_best_on_the_interval_to_which_those_before_it_lead(steps: int) -> None:
    """By Chebyshev's theorem: of three free coefficients, the error takes its largest size four times, in turn."""
    low, high = LEAST[steps], 1.0
    for a, b, c in polynomials(steps):
        values = torch.linspace(low, high, 200_001, dtype=torch.float64)
        error = 1.0 - (a * values + b * values**3 + c * values**5)
        turns = (error.diff()[1:] * error.diff()[:-1] <= 0).nonzero().flatten() + 1
        extremes = error[[0, *turns.tolist(), -1]]
        assert len(extremes) == 4
        assert (extremes[1:] * extremes[:-1] < 0).all()
        assert extremes.abs().max() < 1.01 * extremes.abs().min()
        high = 1.0 + float(extremes.abs().max())
        low = 2.0 - high


def test_from_five_steps_on_they_are_jordans() -> None:
    assert polynomials(5) == [JORDAN] * 5
    assert polynomials(7) == [JORDAN] * 7
    assert [len(polynomials(steps)) for steps in range(1, 9)] == list(range(1, 9))
