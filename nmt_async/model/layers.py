"""Encoder and decoder layers, with layer normalisation before or after each sub-layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.attention import CrossAttention, SelfAttention
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.incremental import LayerCache
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


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, and a feed-forward layer."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.attention = SelfAttention(configuration.dim_emb, configuration.heads)
        self.cross_attention = CrossAttention(configuration.dim_emb, configuration.heads)
        self.feed_forward = FeedForward(configuration)
        self.around_attention = Residual(configuration)
        self.around_cross_attention = Residual(configuration)
        self.around_feed_forward = Residual(configuration)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """(batch, target_length, d) to the same, looking at ``memory`` (batch, source_length, d)."""
        key, value = self.cross_attention.project_memory(memory)
        x = self.around_attention(x, lambda inner: self.attention(inner, None, causal=True))
        x = self.around_cross_attention(x, lambda inner: self.cross_attention.attend(inner, key, value, memory_mask))
        result: Tensor = self.around_feed_forward(x, self.feed_forward)
        return result

    def step(self, x: Tensor, cache: LayerCache, past: Tensor, memory_mask: Tensor) -> Tensor:
        """The newest subword of every hypothesis, (sentences, beam, d) to the same.

        Args:
            cache: this layer's; the newest keys and values are added to it.
            past: the additive mask (sentences, 1, beam, slots) of a hypothesis' own past.
            memory_mask: the additive mask (sentences, 1, 1, source_length) of the source.
        """

        def attend(inner: Tensor) -> Tensor:
            query, key, value = self.attention.project(inner)
            return self.attention.attend_step(query, *cache.append(key, value, past.shape[3]), past)

        def attend_memory(inner: Tensor) -> Tensor:
            if cache.noting:
                cache.attention = self.cross_attention.weights(inner, cache.memory_key, memory_mask)
            return self.cross_attention.attend_step(inner, cache.memory_key, cache.memory_value, memory_mask)

        x = self.around_attention(x, attend)
        x = self.around_cross_attention(x, attend_memory)
        result: Tensor = self.around_feed_forward(x, self.feed_forward)
        return result
