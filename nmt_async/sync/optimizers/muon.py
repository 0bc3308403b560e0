"""Muon (Jordan et al. 2024): the momentum of each hidden matrix is made orthogonal before it becomes a step.

With the momentum M ← μ M + (1 - μ) G, and U = (1 - μ) G + μ M with Nesterov, else M:

W ← W - η (0.2 √max(rows, columns) orthogonal(U) + λ W)

The factor gives the step the size that Adam's has (Liu et al. 2025, arXiv 2502.16982, equation 4), so that Adam's rates
carry over. Embeddings, the output matrix and vectors are Adam's, with the same rate. `orthogonal` is in the file of
that name.

A matrix may be cut into blocks, each orthogonal by itself, which costs less: of its rows, or of its columns where there
are more of these or where its heads are columns.

Some blocks at a time go all the way from gradient to parameters, so few that what is computed of them stays in the
processor's cache. U takes the gradient's place, and the last product adds to the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.sync.optimizers.adam import adam_step
from nmt_async.sync.optimizers.orthogonal import gram_of, inverse_roots, on_gram, operations, orthogonal
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step

AT_ONCE = 2**16
"""Elements of the Gram matrices that are computed with at a time, if one block has no more: 256 KiB of float32."""
AT_ONCE_ELSEWHERE = 2**23
"""The same on other devices than a CPU, where each operation has a cost of its own: 32 MiB."""
ON_GRAM = 5
"""Vectors with which blocks are iterated on their Gram matrices."""


@dataclass(frozen=True)
class Cut:
    """A matrix, cut into blocks that are made orthogonal by themselves.

    Attributes:
        blocks: how many.
        across: they are made of columns.
    """

    matrix: Matrix
    blocks: int
    across: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        rows, columns = self.matrix.rows, self.matrix.columns
        return (rows, columns // self.blocks) if self.across else (rows // self.blocks, columns)

    def of(self, vector: Tensor) -> Tensor:
        """The blocks in ``vector`` (size,), as (blocks, rows, columns)."""
        if self.across:
            return self.matrix.view(vector).view(self.matrix.rows, self.blocks, -1).transpose(0, 1)
        return self.matrix.view(vector).view(self.blocks, -1, self.matrix.columns)


class Muon(Step):
    """Orthogonal steps for ``matrices``, Adam's for all else."""

    REMEMBERS = "Muon's momentum, and Adam's second moment of what is no hidden matrix"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        # A vector without memory stands for one on a CPU.
        at_once = AT_ONCE if like.is_cpu or like.is_meta else AT_ONCE_ELSEWHERE
        self._groups = list(_grouped([_cut(matrix, settings.muon_rows) for matrix in matrices], like, at_once))
        self._rest = _between(matrices, len(like))
        # The vector may lie on several devices: what is joined of it stays where it is, stretch by stretch.
        rest = torch.cat([like[:0], *(like[begin:end] for begin, end in self._rest)])
        # The momentum of matrices and Adam's first moment of the rest are one vector.
        self.tensors = {"moment1": torch.zeros_like(like), "moment2": rest.zero_()}
        self._work = _work(self._groups, like)
        self.working = sum(len(room) for rooms in self._work.values() for room in rooms)

    @property
    def operations(self) -> int:
        """As in `Step`."""
        steps = self.settings.muon_steps
        return sum(cut.blocks * operations(*cut.shape, steps) for cuts in self._groups for cut in cuts)

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`."""
        for cuts in self._groups:
            if on_gram(*cuts[0].shape):
                self._step_together(cuts, parameters, gradient, rate)
            else:
                self._step_alone(cuts[0], parameters, gradient, rate)
        momentum = self.tensors["moment1"]
        second = list(self.tensors["moment2"].split_with_sizes([end - begin for begin, end in self._rest]))
        here, fresh, first = ([vector[i:j] for i, j in self._rest] for vector in (parameters, gradient, momentum))
        for stretch in here:
            self.decay(stretch, rate)
        adam_step(here, fresh, first, second, rate, updates, self.settings)

    def _step_together(self, cuts: Sequence[Cut], parameters: Tensor, gradient: Tensor, rate: float) -> None:
        """The steps of matrices whose blocks have Gram matrices of one size."""
        counts, side = [cut.blocks for cut in cuts], min(cuts[0].shape)
        blocks = [self._ahead(cut, gradient) for cut in cuts]
        place = blocks[0].device
        grams, *work = (self._working(place, number, sum(counts), side, side) for number in range(ON_GRAM))
        for block, gram in zip(blocks, grams.split_with_sizes(counts), strict=True):
            gram_of(block, out=gram)
        roots = inverse_roots(grams, self.settings.muon_steps, work)
        keep = 1.0 - rate * self.settings.weight_decay
        for cut, block, root in zip(cuts, blocks, roots.split_with_sizes(counts), strict=True):
            rows, columns = cut.shape
            factors = (root, block) if rows <= columns else (block, root)
            cut.of(parameters).baddbmm_(*factors, beta=keep, alpha=_scale(cut, rate))

    def _step_alone(self, cut: Cut, parameters: Tensor, gradient: Tensor, rate: float) -> None:
        """The step of a matrix whose blocks are nearly square."""
        (rows, columns), side = cut.shape, min(cut.shape)
        blocks = self._ahead(cut, gradient)
        work = [self._working(blocks.device, number, cut.blocks, rows, columns) for number in (0, 1)]
        work += [self._working(blocks.device, number, cut.blocks, side, side) for number in (2, 3)]
        step = orthogonal(blocks, self.settings.muon_steps, work)
        target = cut.of(parameters)
        self.decay(target, rate)
        target.add_(step, alpha=_scale(cut, rate))

    def _ahead(self, cut: Cut, gradient: Tensor) -> Tensor:
        """Takes the gradient into the momentum of a matrix; the blocks (blocks, rows, columns) of U."""
        begin, end, keep = cut.matrix.begin, cut.matrix.end, self.settings.momentum
        fresh, momentum = gradient[begin:end], self.tensors["moment1"][begin:end]
        momentum.lerp_(fresh, 1.0 - keep)
        if not self.settings.nesterov:
            return cut.of(self.tensors["moment1"])
        fresh.lerp_(momentum, keep)
        return cut.of(gradient)

    def _working(self, place: torch.device, number: int, blocks: int, rows: int, columns: int) -> Tensor:
        return self._work[place][number][: blocks * rows * columns].view(blocks, rows, columns)


def _scale(cut: Cut, rate: float) -> float:
    return -0.2 * rate * math.sqrt(max(cut.shape))


def _cut(matrix: Matrix, most: int) -> Cut:
    """The matrix in the fewest equal blocks of at most so many rows or columns; 0: in one."""
    across = matrix.wide or matrix.columns > matrix.rows
    length = matrix.columns if across else matrix.rows
    count = math.ceil(length / most) if most else 1
    while length % count:
        count += 1
    return Cut(matrix, count, across)


def _place(cut: Cut, vector: Tensor) -> torch.device:
    """Where a matrix in ``vector`` (size,) lies, which may lie on several devices."""
    return cut.matrix.view(vector).device


def _work(groups: Sequence[Sequence[Cut]], like: Tensor) -> dict[torch.device, list[Tensor]]:
    """Vectors to work with on each device that has matrices, as long as the largest group there needs them."""
    rooms: dict[torch.device, list[int]] = {}
    there: dict[torch.device, Tensor] = {}
    for cuts in groups:
        matrix, needed = cuts[0].matrix.view(like), _rooms(cuts)
        there[matrix.device] = matrix
        rooms[matrix.device] = list(map(max, rooms.get(matrix.device, needed), needed))
    return {place: [there[place].new_empty(room) for room in rooms[place]] for place in rooms}


def _grouped(cuts: Sequence[Cut], like: Tensor, at_once: int) -> Iterator[list[Cut]]:
    """Those to compute together: with Gram matrices of one size, on one device, and together at most so many elements;
    else one by itself."""
    open_groups: dict[tuple[int, torch.device], list[Cut]] = {}
    for cut in cuts:
        if not on_gram(*cut.shape):
            yield [cut]
            continue
        kind = min(cut.shape), _place(cut, like)
        group = open_groups.setdefault(kind, [])
        if group and max(_rooms([*group, cut])) > at_once:
            yield group
            group = open_groups[kind] = []
        group.append(cut)
    yield from open_groups.values()


def _rooms(cuts: Sequence[Cut]) -> list[int]:
    """Elements of each of the vectors to work with."""
    (rows, columns), blocks = cuts[0].shape, sum(cut.blocks for cut in cuts)
    square = blocks * min(rows, columns) ** 2
    if on_gram(rows, columns):
        return [square] * ON_GRAM
    return [blocks * rows * columns] * 2 + [square] * 2 + [0]


def _between(matrices: Sequence[Matrix], size: int) -> list[tuple[int, int]]:
    """The stretches of the vector that belong to no matrix."""
    begins = [0, *(matrix.end for matrix in matrices)]
    ends = [*(matrix.begin for matrix in matrices), size]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if end > begin]
