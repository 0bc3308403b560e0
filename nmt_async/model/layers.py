"""The encoder's layer, and what it shares with the decoder's: the feed-forward layer, and what stands around both."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.attention import SelfAttention
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.linear import Linear

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
    """What stands around a sub-layer: Marian's ``n`` before and ``da`` after it, or ``dan`` after it."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(configuration.dim_emb, eps=NORM_EPSILON)
        self.before = configuration.norm == "pre"
        self.dropout = configuration.dropout

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` (…, d) plus the sub-layer's dropped-out output, normalised before or after."""
        inner = sublayer(self.norm(x) if self.before else x)
        total = x + F.dropout(inner, self.dropout, self.training)
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
