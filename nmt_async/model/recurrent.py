"""A recurrent translation model with attention: Marian's ``s2s``, a relative of Bahdanau et al. 2015.

A bidirectional GRU reads the source; `nmt_async.model.conditional` writes the target. Conventions are those of the
Transformer here, and Marian's: the decoder's first input is a zero vector, padding is never a row of the embedding,
the output matrix has a bias beside it. Embeddings are not multiplied by the square root of their width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt_async.model.conditional import ConditionalDecoder, ProjectedSource, RecurrentState, initialise_gru
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.decoder_state import DecoderState, TranslationModel
from nmt_async.model.initial import by_width
from nmt_async.text.batch import Batch, padding_mask


class RecurrentModel(TranslationModel):
    """Encoder and decoder with (tied) embeddings.

    Args:
        configuration: its sizes.
        seed: of the initial parameters (Glorot uniform, each gate for itself; embeddings by their width alone).
    """

    def __init__(self, configuration: ModelConfiguration, seed: int = 1) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.dim_emb
        self.target_embedding = nn.Parameter(torch.empty(configuration.target_vocabulary, width))
        source = (configuration.source_vocabulary, width)
        shared = configuration.tied == "all"
        self.source_embedding = self.target_embedding if shared else nn.Parameter(torch.empty(source))
        tied = configuration.tied != "none"
        self.output_weight = self.target_embedding if tied else nn.Parameter(torch.empty_like(self.target_embedding))
        self.output_bias = nn.Parameter(torch.empty(configuration.target_vocabulary))
        depth = configuration.enc_depth
        self.encoder = nn.GRU(
            width, configuration.dim_rnn, depth, batch_first=True, bidirectional=True,
            dropout=configuration.dropout if depth > 1 else 0.0,
        )  # fmt: skip
        self.decoder = ConditionalDecoder(configuration)
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Sets all parameters anew, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        initialise_gru(self.encoder, generator)
        self.decoder.initialise(generator)
        matrices = (self.source_embedding, self.target_embedding, self.output_weight)
        for matrix in {id(matrix): matrix for matrix in matrices}.values():  # tied ones once
            by_width(matrix, generator)
        self.output_bias.zero_()

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.configuration.dropout, self.training)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[ProjectedSource, Tensor]:
        """The source as the decoder uses it, and the decoder's first state (sentences, dim_rnn).

        Args:
            source: (sentences, source_length), int64.
            source_lengths: (sentences,).
        """
        length = source.shape[1]
        embedded = self._drop(F.embedding(source, self.source_embedding))
        packed = pack_padded_sequence(embedded, source_lengths.cpu(), batch_first=True, enforce_sorted=False)
        memory, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=length)
        mask = None
        if bool((source_lengths != length).any()):
            padding = ~padding_mask(source_lengths, length)[:, None]
            mask = memory.new_zeros(padding.shape).masked_fill_(padding, float("-inf"))
        return self.decoder.project(self._drop(memory), source_lengths, mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised log-probabilities (…, vocabulary) of the decoder's output layer (…, dim_emb)."""
        return F.linear(self._drop(hidden), self.output_weight, self.output_bias)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predictions for every target token of the batch, padding left out.

        Returns:
            Logits (tokens, vocabulary) and the correct subwords (tokens,), in the order of rows, then positions.
        """
        source, hidden = self.encode(batch.source, batch.source_lengths)
        previous = F.embedding(batch.target.t()[:-1], self.target_embedding)
        words = self._drop(F.pad(previous, (0, 0, 0, 0, 1, 0)))
        output = self.decoder(words, source, hidden)
        real = padding_mask(batch.target_lengths, batch.target.shape[1])
        return self.logits(output[real]), batch.target[real]

    def start(self, source: Tensor, source_lengths: Tensor) -> RecurrentState:
        """The decoder's state before the first subword; see `nmt_async.model.decoder_state.TranslationModel`."""
        return self.decoder.start(*self.encode(source, source_lengths))

    def step(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """The next subword's logits; see `nmt_async.model.decoder_state.TranslationModel`."""
        state = cast(RecurrentState, state)
        if previous is None:
            words = self.target_embedding.new_zeros(state.hidden.shape[1], self.target_embedding.shape[1])
        else:
            words = F.embedding(previous, self.target_embedding)
        return self.logits(self.decoder.step(state, self._drop(words)))
