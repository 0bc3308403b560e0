"""The Transformer's decoder layers: self-attention or an SSRU, attention to the encoder, and a feed-forward layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

from torch import Tensor, nn

from nmt_async.model.attention import CrossAttention, SelfAttention
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.decoder_cache import AttentionCache, AttentionState, CellCache, CellState, LayerCache
from nmt_async.model.layers import SSRU, FeedForward, Residual


class DecoderLayer(nn.Module, ABC):
    """What both kinds share: everything but how they read earlier words.

    Attributes:
        state: of a decoder of such layers.
    """

    state: ClassVar[type[AttentionState] | type[CellState]]
    cross_attention: CrossAttention
    feed_forward: FeedForward
    around_cross_attention: Residual
    around_feed_forward: Residual

    @abstractmethod
    def read_past(self, x: Tensor) -> Tensor:
        """The first sub-layer with what is around it: each position reads earlier ones, (batch, length, d) to same."""

    @abstractmethod
    def read_past_step(self, x: Tensor, cache: LayerCache) -> Tensor:
        """The same of the newest subword of every hypothesis, (sentences, beam, d); the cache goes one position on."""

    @abstractmethod
    def start(self, memory: Tensor) -> LayerCache:
        """The cache before the first word, for the encoder's output ``memory`` (sentences, source_length, d)."""

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """(batch, target_length, d) to the same, looking at ``memory`` (batch, source_length, d)."""
        key, value = self.cross_attention.project_memory(memory)
        x = self.read_past(x)
        x = self.around_cross_attention(x, lambda inner: self.cross_attention.attend(inner, key, value, memory_mask))
        result: Tensor = self.around_feed_forward(x, self.feed_forward)
        return result

    def step(self, x: Tensor, cache: LayerCache, memory_mask: Tensor) -> Tensor:
        """The newest subword of every hypothesis, (sentences, beam, d) to the same.

        Args:
            cache: this layer's; it goes one position on.
            memory_mask: the additive mask (sentences, 1, 1, source_length) of the source.
        """

        def attend_memory(inner: Tensor) -> Tensor:
            if cache.noting:
                cache.attention = self.cross_attention.weights(inner, cache.memory_key, memory_mask)
            return self.cross_attention.attend_step(inner, cache.memory_key, cache.memory_value, memory_mask)

        x = self.read_past_step(x, cache)
        x = self.around_cross_attention(x, attend_memory)
        result: Tensor = self.around_feed_forward(x, self.feed_forward)
        return result


class AttentionDecoderLayer(DecoderLayer):
    """Reads earlier words by causal self-attention."""

    state = AttentionState

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.attention = SelfAttention(configuration.dim_emb, configuration.heads)
        self.cross_attention = CrossAttention(configuration.dim_emb, configuration.heads)
        self.feed_forward = FeedForward(configuration)
        self.around_attention = Residual(configuration)
        self.around_cross_attention = Residual(configuration)
        self.around_feed_forward = Residual(configuration)

    def read_past(self, x: Tensor) -> Tensor:
        """See `DecoderLayer`."""
        result: Tensor = self.around_attention(x, lambda inner: self.attention(inner, None, causal=True))
        return result

    def read_past_step(self, x: Tensor, cache: LayerCache) -> Tensor:
        """See `DecoderLayer`."""
        own = cast(AttentionCache, cache)

        def attend(inner: Tensor) -> Tensor:
            query, key, value = self.attention.project(inner)
            return self.attention.attend_step(query, *own.append(key, value), own.past)

        result: Tensor = self.around_attention(x, attend)
        return result

    def start(self, memory: Tensor) -> LayerCache:
        """See `DecoderLayer`."""
        return AttentionCache(*self.cross_attention.project_memory(memory))


class SSRUDecoderLayer(DecoderLayer):
    """Reads earlier words through the cell of an SSRU."""

    state = CellState

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        self.ssru = SSRU(configuration.dim_emb)
        self.cross_attention = CrossAttention(configuration.dim_emb, configuration.heads)
        self.feed_forward = FeedForward(configuration)
        self.around_ssru = Residual(configuration)
        self.around_cross_attention = Residual(configuration)
        self.around_feed_forward = Residual(configuration)

    def read_past(self, x: Tensor) -> Tensor:
        """See `DecoderLayer`."""
        result: Tensor = self.around_ssru(x, self.ssru)
        return result

    def read_past_step(self, x: Tensor, cache: LayerCache) -> Tensor:
        """See `DecoderLayer`."""
        own = cast(CellCache, cache)

        def go_on(inner: Tensor) -> Tensor:
            output, own.cell = self.ssru.step(inner, own.cell)
            return output

        result: Tensor = self.around_ssru(x, go_on)
        return result

    def start(self, memory: Tensor) -> LayerCache:
        """See `DecoderLayer`."""
        return CellCache(*self.cross_attention.project_memory(memory))


DECODER_LAYERS: dict[str, type[AttentionDecoderLayer] | type[SSRUDecoderLayer]] = {
    "self-attention": AttentionDecoderLayer,
    "ssru": SSRUDecoderLayer,
}
"""By a configuration's ``decoder_autoreg``."""
