"""Makes blocks of numbers nearly orthogonal, as Muon's steps are: U S Vᵀ becomes U S' Vᵀ with all of S' near 1.

A step of the iteration takes each singular value x to p(x) = a x + b x³ + c x⁵, without knowing it: with the Gram
matrix G = X Xᵀ it is X ← (a + b G + c G²) X. Before, X is divided by a bound on its largest singular value.

Five steps and more are those of torch.optim.Muon (Jordan et al. 2024): one polynomial, and the norm of X as the bound.
What is above 0.0015 of the norm ends between 0.68 and 1.2.

Fewer steps have the polynomials that are best for so many (Amsel et al. 2025, arXiv 2505.16932): each is the one that
is nearest to 1 on the interval to which those before it lead. They bring all from `LEAST` of the bound on to 0.8 to
1.2. The bound is the fourth root of the norm of G², which is nearer than the norm of X, and for which nothing more has
to be multiplied. Blocks of a few rows have no very small singular values: three such steps bring theirs nearer to 1
than Jordan's five, and four those of whole matrices.

A block that is longer than wide by half iterates on its Gram matrix alone, which is smaller: with P = a + b G + c G²,
P X has the Gram matrix P G P, and all of these commute. So X itself is multiplied twice, and not twice a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Polynomial = tuple[float, float, float]

JORDAN: Polynomial = (3.4445, -4.7750, 2.0315)
JORDANS_STEPS = 5
"""From so many on, each step has his polynomial."""
_LAST: list[Polynomial] = [(3.509271, -2.629360, 0.526027), (2.494469, -1.837978, 0.437242)]
BEST: dict[int, list[Polynomial]] = {
    1: [(4.111229, -8.228501, 5.317272)],
    2: [(6.663973, -18.005248, 12.989412), *_LAST[1:]],
    3: [(7.988322, -23.206278, 17.116919), *_LAST],
    4: [(8.384497, -24.769158, 18.359668), (4.044703, -3.012304, 0.569615), *_LAST],
}
"""By the number of steps."""
LEAST = {1: 0.2135, 2: 0.0533, 3: 0.0127, 4: 0.0030}
"""The smallest value that they bring to 0.8."""
TINY = 1e-14
"""The square of a norm below which a block counts as zero."""


def polynomials(steps: int) -> list[Polynomial]:
    """Those of so many steps, in their order."""
    return BEST.get(steps, [JORDAN] * steps)


def on_gram(rows: int, columns: int) -> bool:
    """Whether a block of so many is iterated on its Gram matrix alone."""
    return 2 * max(rows, columns) > 3 * min(rows, columns)


def operations(rows: int, columns: int, steps: int) -> int:
    """Floating-point operations in the products that make one block orthogonal, additions counted too."""
    side, other = min(rows, columns), max(rows, columns)
    with_block, of_squares = 2 * side * side * other, 2 * side**3
    if on_gram(rows, columns):
        return 2 * with_block + (4 * steps - 3) * of_squares
    return steps * (2 * with_block + of_squares)


def gram_of(blocks: Tensor, out: Tensor) -> Tensor:
    """The smaller of X Xᵀ and Xᵀ X of each block (blocks, rows, columns)."""
    factors = (blocks, blocks.mT) if blocks.shape[1] <= blocks.shape[2] else (blocks.mT, blocks)
    return torch.bmm(*factors, out=out)


def inverse_roots(grams: Tensor, steps: int, work: Sequence[Tensor]) -> Tensor:
    """Matrices that make blocks nearly orthogonal: with their Gram matrices X Xᵀ from the left, Xᵀ X from the right.

    Args:
        grams: (blocks, side, side), overwritten.
        work: four of that shape, overwritten; the result is one of them.
    """
    one, other, spare, product = work
    scale = _normalised(grams)
    for step, polynomial in enumerate(polynomials(steps)):
        factor = torch.bmm(grams, grams, out=one)
        if step == 0 and steps < JORDANS_STEPS:
            scale *= _bounded(grams, factor)
        _evaluate(polynomial, grams, factor)
        if step + 1 < steps:
            torch.bmm(torch.bmm(factor, grams, out=spare), factor, out=grams)
        if step == 0:
            one, product = product, one
        else:
            torch.bmm(factor, product, out=other)
            product, other = other, product
    return product.mul_(scale.rsqrt_())


def orthogonal(blocks: Tensor, steps: int, work: Sequence[Tensor]) -> Tensor:
    """Makes each of ``blocks`` (blocks, rows, columns) nearly orthogonal, by products with the block itself.

    Args:
        work: two of that shape, and two of the Gram matrices' (blocks, side, side), overwritten; the result is one of
            the first two.
    """
    found, spare, gram, factor = work
    found.copy_(blocks)
    left = blocks.shape[1] <= blocks.shape[2]
    for step, polynomial in enumerate(polynomials(steps)):
        gram_of(found, gram)
        scale = _normalised(gram) if step == 0 else None
        torch.bmm(gram, gram, out=factor)
        if scale is not None and steps < JORDANS_STEPS:
            scale *= _bounded(gram, factor)
        _evaluate(polynomial, gram, factor)
        if scale is not None:
            factor.mul_(scale.rsqrt_())
        torch.bmm(*((factor, found) if left else (found, factor)), out=spare)
        found, spare = spare, found
    return found


def _normalised(grams: Tensor) -> Tensor:
    """Divides each by its trace, which is the square of its block's norm; by what, (blocks, 1, 1)."""
    traces = grams.diagonal(dim1=1, dim2=2).sum(dim=1).clamp_(min=TINY).view(-1, 1, 1)
    grams.div_(traces)
    return traces


def _bounded(grams: Tensor, squares: Tensor) -> Tensor:
    """Divides each, and its square, by the bound on its largest eigenvalue; by what, (blocks, 1, 1)."""
    bounds: Tensor = torch.linalg.vector_norm(squares, dim=(1, 2), keepdim=True).sqrt_().clamp_(min=TINY)
    grams.div_(bounds)
    squares.div_(bounds.square())
    return bounds


def _evaluate(polynomial: Polynomial, grams: Tensor, squares: Tensor) -> None:
    """Makes a + b G + c G² of ``squares``."""
    a, b, c = polynomial
    squares.mul_(c).add_(grams, alpha=b).diagonal(dim1=1, dim2=2).add_(a)
