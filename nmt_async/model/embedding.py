"""Embeddings with sinusoid positions, in Marian's convention.

Marian multiplies embeddings by the square root of their width and adds sines in the first half, cosines in the
second, with timescale exponent i / (d/2 - 1) (Vaswani et al. 2017 interleave them and divide by d/2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoid_positions(length: int, width: int) -> Tensor:
    """The position table (length, width), float32: sines in the first half of a row, cosines in the second."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float64) / max(half - 1, 1)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * torch.pow(10000.0, -exponents)[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class Embedding(nn.Module):
    """Subword indexes to vectors with their positions; the matrix may be shared with other places."""

    positions: Tensor

    def __init__(self, weight: nn.Parameter, positions: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.scale = math.sqrt(weight.shape[1])
        self.register_buffer("positions", positions, persistent=False)

    def table(self, first: int, length: int) -> Tensor:
        """Rows ``first`` to ``first + length`` of the position table, computed anew beyond its end."""
        if first + length > self.positions.shape[0]:
            with torch.inference_mode(False):  # the table outlives the search that needs it, and training may follow
                grown = sinusoid_positions(2 * (first + length), self.weight.shape[1])
                self.positions = grown.to(self.positions)
        return self.positions[first : first + length]

    def forward(self, indexes: Tensor, first: int = 0) -> Tensor:
        """Vectors (batch, length, d) of ``indexes`` (batch, length) that stand at positions ``first`` onwards."""
        embedded = F.embedding(indexes, self.weight) * self.scale
        return embedded + self.table(first, indexes.shape[1])

    def shifted(self, indexes: Tensor) -> Tensor:
        """The decoder's inputs for the words ``indexes`` (batch, length): a zero vector, then all but the last."""
        embedded = F.embedding(indexes[:, :-1], self.weight) * self.scale
        return F.pad(embedded, (0, 0, 1, 0)) + self.table(0, indexes.shape[1])

    def first_input(self, rows: int) -> Tensor:
        """The decoder's input before any word: a zero vector with its position, (rows, 1, d)."""
        return self.table(0, 1)[None].expand(rows, 1, -1)
