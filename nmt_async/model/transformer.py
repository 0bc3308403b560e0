"""The Transformer (Vaswani et al. 2017) in Marian's conventions.

The decoder's first input is a zero vector, not a begin token; padding is a mask and never a row of the embedding;
the output matrix has a bias beside it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.model.attention import in_lanes
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.decoder_cache import TransformerState
from nmt_async.model.decoder_layers import DECODER_LAYERS, DecoderLayer
from nmt_async.model.initialisation import (
    GLOROT,
    T_FIXUP,
    by_width,
    embedding_factor,
    glorot_stacked,
    initialisation_for,
    normal_by_width,
    once,
    t_fixup_factors,
)
from nmt_async.model.kernels import Arithmetic, dropped
from nmt_async.model.layers import NORM_EPSILON, SSRU, Embedding, EncoderLayer, sinusoid_positions
from nmt_async.model.linear import Make, Product
from nmt_async.model.packed_matrix import dense
from nmt_async.model.parameters import Stack
from nmt_async.model.translation_model import DecoderState, TrainableModel
from nmt_async.text.batch import Batch, padding_mask


def stacked_in(name: str) -> int:
    """How many matrices stand beneath each other in the weight of the linear layer of that name."""
    return {"query_key_value": 3, "key_value": 2, "input_and_forget": 2}.get(name.rpartition(".")[2], 1)


class Transformer(TrainableModel):
    """Encoder and decoder with (tied) embeddings.

    Args:
        configuration: its sizes.
        seed: of the initial parameters.
        initialisation: how they are drawn, glorot or t-fixup (`nmt_async.model.initialisation`); None: as suits the
            configuration's normalisation.
    """

    arithmetic = Arithmetic()

    def __init__(self, configuration: ModelConfiguration, seed: int = 1, initialisation: str | None = None) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.dim_emb
        positions = sinusoid_positions(configuration.max_positions, width)
        target = nn.Parameter(torch.empty(configuration.target_vocabulary, width))
        shared = configuration.tied == "all"
        source = target if shared else nn.Parameter(torch.empty(configuration.source_vocabulary, width))
        self.source_embedding = Embedding(source, positions)
        self.target_embedding = Embedding(target, positions)
        self.output_weight = target if configuration.tied != "none" else nn.Parameter(torch.empty_like(target))
        self.output_bias = nn.Parameter(torch.empty(configuration.target_vocabulary))
        self.encoder = nn.ModuleList(EncoderLayer(configuration) for _ in range(configuration.enc_depth))
        decoder_layer = DECODER_LAYERS[configuration.decoder_autoreg]
        self.decoder = nn.ModuleList(decoder_layer(configuration) for _ in range(configuration.dec_depth))
        pre = configuration.norm == "pre"
        self.encoder_top = nn.LayerNorm(width, eps=NORM_EPSILON) if pre else nn.Identity()
        self.decoder_top = nn.LayerNorm(width, eps=NORM_EPSILON) if pre else nn.Identity()
        self.output_product: Product | None = None
        self.initialise(seed, initialisation or initialisation_for(configuration.norm))

    @torch.no_grad()
    def initialise(self, seed: int, initialisation: str) -> None:
        """Sets all parameters anew, the same for the same seed.

        Raises:
            ValueError: there is no such initialisation of this model.
        """
        fits = {GLOROT: True, T_FIXUP: self.configuration.norm == "none"}
        if not fits.get(initialisation, False):
            raise ValueError(f"{initialisation!r} is no initialisation of a model with norm {self.configuration.norm}")
        generator = torch.Generator().manual_seed(seed)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                glorot_stacked(module.weight, generator, self._factors(name, initialisation))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, SSRU):
                module.forget_bias.zero_()
        if initialisation == T_FIXUP:
            self._draw_embeddings_for_t_fixup(generator)
        else:
            for weight in once(self._embedding_matrices()):
                by_width(weight, generator)
        self.output_bias.zero_()

    def _factors(self, name: str, initialisation: str) -> list[float]:
        if initialisation == T_FIXUP:
            return t_fixup_factors(name, self.configuration.enc_depth, self.configuration.dec_depth)
        return [1.0] * stacked_in(name)

    def _draw_embeddings_for_t_fixup(self, generator: torch.Generator) -> None:
        source, target, output = self._embedding_matrices()
        depths = self.configuration.enc_depth, self.configuration.dec_depth
        for weight in once((source, target, output)):
            if weight is source:  # which may be the target's, too
                factor = embedding_factor(max(depths))
            else:
                factor = embedding_factor(depths[1]) if weight is target else 1.0
            normal_by_width(weight, generator, factor)

    def stacks(self) -> dict[str, Stack]:
        """As in `Stacked`: the matrices of the layers."""
        found = {}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                count = stacked_in(name)
                heights = (module.out_features // count,) * count
                found[f"{name}.weight"] = Stack(heights, wide=name.endswith("attention.output"))
        return found

    def _embedding_matrices(self) -> list[nn.Parameter]:
        return [self.source_embedding.weight, self.target_embedding.weight, self.output_weight]

    def _drop(self, x: Tensor) -> Tensor:
        return dropped(x, self.configuration.dropout, self.arithmetic.fused) if self.training else x

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's output (batch, source_length, d), and where it holds tokens.

        Args:
            source: (batch, source_length), int64.
            source_lengths: (batch,).

        Returns:
            The output and a mask (batch, 1, 1, source_length), True at tokens; None where there is no padding.
        """
        mask = None
        if bool((source_lengths != source.shape[1]).any()):
            mask = padding_mask(source_lengths, source.shape[1])[:, None, None, :]
        x = self._drop(self.source_embedding(source))
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_top(x), mask

    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised log-probabilities (…, vocabulary) of the decoder's output (…, d)."""
        if self.output_product is not None:
            return self.output_product(hidden)
        return F.linear(hidden, self.output_weight, self.output_bias)

    def pack(self, make: Make | None) -> None:
        """The output matrix packed by ``make``, as it is with None; see `nmt_async.model.linear.packed`."""
        self.output_product = None if make is None else make(dense(self.output_weight), self.output_bias)

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As in `TrainableModel`."""
        memory, mask = self.encode(batch.source, batch.source_lengths)
        x = self._drop(self.target_embedding.shifted(batch.target))
        for layer in self.decoder:
            x = layer(x, memory, mask)
        real = padding_mask(batch.target_lengths, batch.target.shape[1])
        return self.decoder_top(x[real]), batch.target[real]

    def start(self, source: Tensor, source_lengths: Tensor) -> TransformerState:
        """The decoder's state before the first subword; see `nmt_async.model.translation_model.TranslationModel`."""
        memory, _ = self.encode(source, source_lengths)
        length = in_lanes(source.shape[1])
        memory = F.pad(memory, (0, 0, 0, length - source.shape[1]))
        real = padding_mask(source_lengths, length)
        caches = [cast(DecoderLayer, layer).start(memory) for layer in self.decoder]
        additive = memory.new_zeros(real.shape).masked_fill_(~real, float("-inf"))[:, None, None]
        return DECODER_LAYERS[self.configuration.decoder_autoreg].state(caches, additive)

    def step(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """The next subword's logits; see `nmt_async.model.translation_model.TranslationModel`."""
        state = cast(TransformerState, state)
        if previous is None:
            x = self.target_embedding.first_input(state.sentences)
        else:
            x = self.target_embedding(previous.view(-1, 1), state.position)
        x = self._drop(x).view(state.sentences, state.beam, -1)
        state.advance()
        for layer, cache in zip(self.decoder, state.layers, strict=True):
            x = cast(DecoderLayer, layer).step(x, cache, state.memory_mask)
        return self.logits(self.decoder_top(x).view(state.sentences * state.beam, -1))
