"""The Transformer's parts besides attention: embeddings, feed-forward layers, what stands around both, and the SSRU.

**Embeddings** are Marian's: multiplied by the square root of their width, sines are added in the first half of a
vector and cosines in the second, with timescale exponent i / (d/2 - 1) (Vaswani et al. 2017 interleave them and divide
by d/2).

**The simpler simple recurrent unit**, SSRU (Kim et al. 2019, section 3.1), stands in the place of a decoder's
self-attention where that is asked for. With forget gates f_t = sigmoid(W_f x_t + b_f), a cell
c_t = f_t c_{t-1} + (1 - f_t) W x_t starts from zero, and the output is relu(c_t). No matrix meets the cell, so both
products are computed for all positions at once, and only elementwise operations go from position to position. What a
translation has to remember of its past is one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.attention import SelfAttention
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.kernels import Arithmetic, plus_dropped
from nmt_async.model.linear import Linear


def sinusoid_positions(length: int, width: int) -> Tensor:
    """The position table (length, width), float32: sines in the first half of a row, cosines in the second."""
    if torch.get_default_device().type == "meta":  # a model of sizes alone; sines would import compilers
        return torch.empty(length, width)
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
        table = self.positions
        if first + length > table.shape[0]:
            with torch.inference_mode(False):  # the table outlives the search that needs it, and training may follow
                table = sinusoid_positions(2 * (first + length), self.weight.shape[1]).to(table)
            self.positions = table
        return table[first : first + length]  # not of self: another thread may search, and make one of its own

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


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "swish": F.silu, "gelu": F.gelu}
NORM_EPSILON = 1e-6


class FeedForward(nn.Module):
    """Two linear layers around a non-linearity (Vaswani et al. 2017, equation 2)."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.inner = Linear(configuration.dim_emb, configuration.dim_ffn)
        self.outer = Linear(configuration.dim_ffn, configuration.dim_emb)
        self.activation = None if configuration.activation == "relu" else ACTIVATIONS[configuration.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) to (…, d)."""
        inner = self.inner.relu(x) if self.activation is None else self.activation(self.inner(x))
        result: Tensor = self.outer(inner)
        return result


class Residual(nn.Module):
    """What stands around a sub-layer: Marian's ``n`` before and ``da`` after it, ``dan`` after it, or ``da`` alone."""

    arithmetic = Arithmetic()

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        none = configuration.norm == "none"
        self.norm = nn.Identity() if none else nn.LayerNorm(configuration.dim_emb, eps=NORM_EPSILON)
        self.before = configuration.norm == "pre"
        self.dropout = configuration.dropout

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` (…, d) plus the sub-layer's dropped-out output, normalised before or after, if at all."""
        inner = sublayer(self.norm(x) if self.before else x)
        total = plus_dropped(x, inner, self.dropout, self.arithmetic.fused) if self.training else x + inner
        return total if self.before else self.norm(total)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward layer."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.attention = SelfAttention(configuration.dim_emb, configuration.heads)
        self.feed_forward = FeedForward(configuration)
        self.around_attention = Residual(configuration)
        self.around_feed_forward = Residual(configuration)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, source_length, d) to the same; ``mask`` as in `SelfAttention.attend`."""
        x = self.around_attention(x, lambda inner: self.attention(inner, mask))
        result: Tensor = self.around_feed_forward(x, self.feed_forward)
        return result


class SSRU(nn.Module):
    """The unit; W and W_f lie in one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_and_forget = Linear(width, 2 * width, bias=False)
        self.forget_bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (batch, length, d) after each position of ``x`` (batch, length, d)."""
        inputs, forget = self._gated(x)
        cell, cells = torch.zeros_like(inputs[:, 0]), []
        for added, kept in zip(inputs.unbind(1), forget.unbind(1), strict=True):
            cell = torch.lerp(added, cell, kept)
            cells.append(cell)
        return F.relu(torch.stack(cells, dim=1))

    def step(self, x: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs for the newest inputs ``x`` (…, d), and the cells after them, both (…, d).

        Args:
            cell: before them, (…, d).
        """
        inputs, forget = self._gated(x)
        cell = torch.lerp(inputs, cell, forget)
        return F.relu(cell), cell

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x and the forget gates, each (…, d)."""
        product = self.input_and_forget(x).to(x.dtype)  # a cell is a sum, and sums are not rounded
        inputs, forget = product.chunk(2, dim=-1)
        return inputs, torch.sigmoid(forget + self.forget_bias)
