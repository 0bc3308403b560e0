"""Muon (Jordan et al. 2024): the momentum of each hidden matrix is made orthogonal before it becomes a step.

With the momentum M ← μ M + (1 - μ) G, and U = (1 - μ) G + μ M with Nesterov, else M:

W ← W - η (0.2 √max(rows, columns) orthogonal(U) + λ W)

The factor gives the step the size that Adam's has (Liu et al. 2025, arXiv 2502.16982, equation 4), so that Adam's rates
carry over. Embeddings, the output matrix and vectors are Adam's, with the same rate.

`orthogonal` is the Newton-Schulz iteration of torch.optim.Muon, in float32, on all blocks of one shape at once: what
that optimizer makes of U S Vᵀ is U S' Vᵀ with S' between about 0.7 and 1.2. A block of many more columns than rows
iterates on its small Gram matrix: (a + b G + c G²) X has the Gram matrix P G P, P = a + b G + c G², and all of these
commute; so X itself is multiplied twice, and not twice a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.sync.optimizers.adam import adam_step
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step, zeros

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
TINY = 1e-7


class Muon(Step):
    """Orthogonal steps for ``matrices``, Adam's for all else."""

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self._groups: dict[tuple[int, int], list[tuple[Matrix, int]]] = {}
        for matrix in matrices:
            blocks, shape = _blocks(matrix, settings.muon_rows)
            self._groups.setdefault(shape, []).append((matrix, blocks))
        self._rest = _between(matrices, len(like))
        left = sum(end - begin for begin, end in self._rest)
        # The momentum of matrices and Adam's first moment of the rest are one vector.
        self.tensors = {"moment1": zeros(like), "moment2": like.new_zeros(left)}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`."""
        self.decay(parameters, rate)
        momentum = self.tensors["moment1"]
        for shape, members in self._groups.items():
            self._orthogonal_steps(shape, members, parameters, gradient, rate)
        second = list(self.tensors["moment2"].split_with_sizes([end - begin for begin, end in self._rest]))
        here, fresh, first = ([vector[i:j] for i, j in self._rest] for vector in (parameters, gradient, momentum))
        adam_step(here, fresh, first, second, rate, updates, self.settings)

    @property
    def operations(self) -> int:
        """As in `Step`."""
        return sum(
            sum(blocks for _, blocks in members) * orthogonal_operations(*shape, self.settings.muon_steps)
            for shape, members in self._groups.items()
        )

    def _orthogonal_steps(
        self,
        shape: tuple[int, int],
        members: list[tuple[Matrix, int]],
        parameters: Tensor,
        gradient: Tensor,
        rate: float,
    ) -> None:
        """The steps of all matrices that are cut into blocks of one ``shape``."""
        counts = [blocks for _, blocks in members]
        steps = parameters.new_empty(sum(counts), *shape)
        keep = self.settings.momentum
        for (matrix, blocks), place in zip(members, steps.split_with_sizes(counts), strict=True):
            fresh, momentum = matrix.view(gradient), matrix.view(self.tensors["moment1"])
            momentum.lerp_(fresh, 1.0 - keep)
            place.copy_(_cut(fresh.lerp_(momentum, keep) if self.settings.nesterov else momentum, matrix, blocks))
        steps = orthogonal(steps, self.settings.muon_steps)
        scale = -0.2 * rate * math.sqrt(max(shape))
        for (matrix, blocks), step in zip(members, steps.split_with_sizes(counts), strict=True):
            _cut(matrix.view(parameters), matrix, blocks).add_(step, alpha=scale)


def _blocks(matrix: Matrix, most: int) -> tuple[int, tuple[int, int]]:
    """Into how many blocks it is cut, and their shape as they are made orthogonal: no more rows than columns."""
    length, other = (matrix.columns, matrix.rows) if _by_columns(matrix) else (matrix.rows, matrix.columns)
    count = math.ceil(length / most) if most else 1
    while length % count:
        count += 1
    size = length // count
    return count, (min(size, other), max(size, other))


def _by_columns(matrix: Matrix) -> bool:
    return matrix.wide or matrix.columns > matrix.rows


def _cut(view: Tensor, matrix: Matrix, blocks: int) -> Tensor:
    """The blocks (blocks, rows, columns) of a matrix (rows, columns), each with no more rows than columns."""
    if _by_columns(matrix):
        cut = view.view(matrix.rows, blocks, -1).permute(1, 2, 0)
    else:
        cut = view.view(blocks, -1, matrix.columns)
    return cut.mT if cut.shape[1] > cut.shape[2] else cut


def _between(matrices: Sequence[Matrix], size: int) -> list[tuple[int, int]]:
    """The stretches of the vector that belong to no matrix."""
    begins = [0, *(matrix.end for matrix in matrices)]
    ends = [*(matrix.begin for matrix in matrices), size]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if end > begin]


def orthogonal(blocks: Tensor, steps: int) -> Tensor:
    """Makes each of ``blocks`` (blocks, rows, columns), rows ≤ columns, nearly orthogonal; they may be overwritten."""
    a, b, c = COEFFICIENTS
    blocks = blocks.div_(torch.linalg.vector_norm(blocks, dim=(1, 2), keepdim=True).clamp_(min=TINY))
    rows, columns = blocks.shape[1:]
    if 2 * rows > columns:
        for _ in range(steps):
            gram = blocks @ blocks.mT
            blocks = torch.baddbmm(blocks, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), blocks, beta=a)
        return blocks
    one = torch.eye(rows, dtype=blocks.dtype, device=blocks.device)
    gram, product = blocks @ blocks.mT, one.expand(len(blocks), rows, rows)
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * one
        product = factor @ product if step else factor
        if step + 1 < steps:
            gram = factor @ (gram @ factor)
    return product @ blocks


def orthogonal_operations(rows: int, columns: int, steps: int) -> int:
    """Floating-point operations of the products with which `orthogonal` treats one block (rows, columns)."""
    with_block, of_squares = 2 * rows * rows * columns, 2 * rows**3
    if 2 * rows > columns:
        return steps * (2 * with_block + of_squares)
    return 2 * with_block + (4 * steps - 3) * of_squares
