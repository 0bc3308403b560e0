"""Padded batches: the form in which sentences reach a model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nmt_async.text.vocabulary import END


@dataclass(frozen=True)
class Batch:
    """Sentence pairs as subword indexes, each sentence with its end mark; padding is known by the lengths alone.

    Attributes:
        source: (batch, source_length), int64; beyond a row's length the content means nothing.
        source_lengths: (batch,), int64, counting the end mark.
        target: (batch, target_length), int64.
        target_lengths: (batch,), int64, counting the end mark.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor

    @property
    def source_tokens(self) -> int:
        """Source subwords with end marks, padding not counted."""
        return int(self.source_lengths.sum())

    @property
    def target_tokens(self) -> int:
        """Target subwords with end marks, padding not counted: what an update is normalised by."""
        return int(self.target_lengths.sum())

    def __len__(self) -> int:
        return self.source.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    @property
    def padded_tokens(self) -> int:
        """Source and target positions, padding counted: about what memory a model needs for it goes by."""
        return self.source.numel() + self.target.numel()

    def pieces(self, count: int) -> list[Batch]:
        """Its rows in order, in ``count`` pieces that differ by one row at most; fewer if it has fewer rows."""
        count = max(1, min(count, len(self)))
        if count == 1:
            return [self]
        borders = [index * len(self) // count for index in range(count + 1)]
        return [self._rows(slice(*border)) for border in itertools.pairwise(borders)]

    def _rows(self, rows: slice) -> Batch:
        source_lengths, target_lengths = self.source_lengths[rows], self.target_lengths[rows]
        return Batch(
            self.source[rows, : int(source_lengths.max())], source_lengths,
            self.target[rows, : int(target_lengths.max())], target_lengths,
        )  # fmt: skip


def pad(rows: Sequence[np.ndarray | Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of subword indexes as one padded matrix (rows, longest) and their lengths (rows,), both int64."""
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    matrix = np.full((len(rows), int(lengths.max(initial=0))), END, dtype=np.int64)
    for index, row in enumerate(rows):
        matrix[index, : len(row)] = row
    return torch.from_numpy(matrix), torch.from_numpy(lengths)


def padding_mask(lengths: Tensor, length: int) -> Tensor:
    """True where a token stands, False where padding: (batch, length) for lengths (batch,)."""
    return torch.arange(length, device=lengths.device)[None, :] < lengths[:, None]
