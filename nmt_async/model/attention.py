"""Multi-head attention (Vaswani et al. 2017, section 3.2) over torch's fused kernel.

Query, key and value projections lie in one matrix, so that one product computes them; Marian keeps them apart,
and each part is initialised as if it were.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.linear import Linear


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, length, d) as (batch, heads, length, d / heads)."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, length, d / heads) as (batch, length, d)."""
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def attend_step(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of the few queries of a step, (batch, heads, queries, d / heads) to the same.

    On a CPU torch's fused kernel takes up to twice as long for so few; its softmax is slow below `LANES` keys.

    Args:
        mask: additive, broadcastable to (batch, heads, queries, keys).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(query.shape[3] ** -0.5).add_(mask)
    return torch.matmul(torch.softmax(scores, dim=3), value)


LANES = 16
"""Floats in a register of AVX-512."""


def in_lanes(length: int) -> int:
    """The next multiple of `LANES`."""
    return -(-length // LANES) * LANES


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``x`` (batch, length, d), each (batch, heads, length, d / heads)."""
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        return split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """The attended values after the output projection, (batch, query_length, d).

        Args:
            mask: True where a query may look, broadcastable to (batch, heads, query_length, key_length).
            causal: a query looks at its own position and earlier ones only.
        """
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        result: Tensor = self.output(merge_heads(attended))
        return result

    def attend_step(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """As `attend`, for the few queries of a step; the mask is additive."""
        result: Tensor = self.output(merge_heads(attend_step(query, key, value, mask)))
        return result

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """``x`` (batch, length, d) attended to itself, (batch, length, d)."""
        return self.attend(*self.project(x), mask, causal)


class CrossAttention(nn.Module):
    """Attention of the decoder to the encoder's output."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.output = Linear(width, width)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output (batch, source_length, d), each (batch, heads, source_length, …)."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def attend(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """What ``x`` (batch, length, d) finds in the projected memory, (batch, length, d)."""
        query = split_heads(self.query(x), self.heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.output(merge_heads(attended))
        return result

    def attend_step(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """As `attend`, for the few queries of a step; the mask is additive."""
        attended = attend_step(split_heads(self.query(x), self.heads), key, value, mask)
        result: Tensor = self.output(merge_heads(attended))
        return result

    def weights(self, x: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Where in the memory the first head looks, (batch, length, source_length): what Marian aligns by.

        Args:
            mask: additive, (batch, 1, 1, source_length).
        """
        query, key = split_heads(self.query(x), self.heads)[:, 0], key[:, 0]
        scores = query @ key.transpose(1, 2) / math.sqrt(key.shape[2])
        return torch.softmax(scores + mask[:, 0], dim=2)
