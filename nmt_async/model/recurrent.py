"""A recurrent translation model with attention: Marian's ``s2s``, a relative of Bahdanau et al. 2015.

A bidirectional GRU reads the source; a conditional GRU writes the target (Nematus: Sennrich et al. 2017, section 3.1).
For each target position a first GRU cell reads the previous word, its state asks the source (additive attention,
Bahdanau et al. 2015, appendix A), and a second cell reads the answer. The word's, the state's and the context's
projections together, under tanh, are the deep output layer.

What depends on words or on the source alone is computed for all positions at once, before the loop. A context is
a weighted mean, and so is its product with a matrix: the source is projected, not the contexts.

Conventions are those of the Transformer here, and Marian's: the decoder's first input is a zero vector, padding is
never a row of the embedding, the output matrix has a bias beside it. Embeddings are not multiplied by the square root
of their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.initialisation import by_width, glorot, glorot_stacked, once
from nmt_async.model.parameters import Stack
from nmt_async.model.translation_model import DecoderState, TrainableModel, new_places
from nmt_async.text.batch import Batch, padding_mask


def gru_cell(inputs: Tensor, states: Tensor, hidden: Tensor) -> Tensor:
    """The new state (rows, d) of a GRU (Cho et al. 2014; with the reset gate after the product, as torch and Marian).

    Args:
        inputs: the input's part of reset gate, update gate and proposed state, (rows, 3 d).
        states: the same of the state before.
        hidden: the state before, (rows, d).
    """
    width = hidden.shape[1]
    reset, update = torch.sigmoid(inputs[:, : 2 * width] + states[:, : 2 * width]).chunk(2, dim=1)
    proposed = torch.tanh(torch.addcmul(inputs[:, 2 * width :], reset, states[:, 2 * width :]))
    return torch.lerp(proposed, hidden, update)


def additive_attention(query: Tensor, keys: Tensor, vector: Tensor, mask: Tensor | None) -> Tensor:
    """Weights (sentences, beam, source_length) over the source: softmax of vector . tanh(query + key).

    Args:
        query: (sentences, beam, d).
        keys: (sentences, source_length, d).
        vector: (d,).
        mask: (sentences, 1, source_length), 0 at words and -inf at padding; None where there is no padding.
    """
    scores = torch.tanh(query[:, :, None] + keys[:, None]) @ vector
    return torch.softmax(scores if mask is None else scores + mask, dim=2)


@dataclass
class ProjectedSource:
    """The encoder's output as the decoder uses it.

    Attributes:
        keys: for attention, (sentences, source_length, dim_rnn).
        gates: what its words add to the second cell's gates, (sentences, source_length, 3 dim_rnn).
        output: and to the output layer, (sentences, source_length, dim_emb).
        mask: (sentences, 1, source_length), 0 at words and -inf at padding; None where there is no padding.
    """

    keys: Tensor
    gates: Tensor
    output: Tensor
    mask: Tensor | None

    def keep(self, kept: Tensor) -> None:
        """Forgets all sentences but ``kept``; only those that change their place are moved."""
        moved = new_places(kept)
        for name in ("keys", "gates", "output", "mask"):
            tensor = getattr(self, name)
            if tensor is not None:
                tensor[moved] = tensor[kept[moved]]
                setattr(self, name, tensor[: len(kept)])


class RecurrentState(DecoderState):
    """The states of all hypotheses and the source.

    Attributes:
        hidden: (layers, sentences * beam, dim_rnn), the conditional layer first.
        noting: whether `attention` is noted.
    """

    def __init__(self, source: ProjectedSource, hidden: Tensor) -> None:
        self.source = source
        self.hidden = hidden
        self.sentences = hidden.shape[1]
        self.beam = 1
        self.noting = False
        self._attention: Tensor | None = None

    def note_attention(self) -> None:
        self.noting = True

    @property
    def attention(self) -> Tensor | None:
        """What the conditional layer's second cell read."""
        return self._attention

    def note(self, weights: Tensor) -> None:
        """Takes the attention of a step, (sentences, beam, source_length)."""
        self._attention = weights

    def reorder(self, parents: Tensor) -> None:
        first = self.beam * torch.arange(self.sentences, device=parents.device)
        self.hidden = self.hidden.index_select(1, (parents + first[:, None]).view(-1))
        self.beam = parents.shape[1]

    def keep(self, kept: Tensor) -> None:
        self.source.keep(kept)
        layers, _, width = self.hidden.shape
        by_sentence = self.hidden.view(layers, self.sentences, self.beam, width)
        self.hidden = by_sentence.index_select(1, kept).view(layers, -1, width)
        self.sentences = len(kept)


def initialise_gru(gru: nn.GRU, generator: torch.Generator) -> None:
    """Glorot uniform, each gate for itself; biases zero."""
    for name, parameter in gru.named_parameters():
        if name.startswith("weight"):
            glorot_stacked(parameter, generator, (1.0,) * 3)
        else:
            nn.init.zeros_(parameter)


class ConditionalDecoder(nn.Module):
    """From previous words and the encoder's output to the deep output layer; `dec_depth` - 1 GRU layers between."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        super().__init__()
        width, embedding = configuration.dim_rnn, configuration.dim_emb
        self.width = width
        self.dropout = configuration.dropout
        self.first_state = nn.Linear(2 * width, width)
        self.word = nn.Linear(embedding, 3 * width + embedding)  # the first cell's gates, the output layer's part
        self.source = nn.Linear(2 * width, 4 * width + embedding)  # keys, the second cell's gates, the output's part
        self.state_gates = nn.Linear(width, 3 * width)
        self.query_and_gates = nn.Linear(width, 4 * width)
        self.attention = nn.Parameter(torch.empty(width))
        depth = configuration.dec_depth - 1
        self.upper = nn.GRU(width, width, depth, dropout=self.dropout if depth > 1 else 0.0) if depth else None
        self.output = nn.Linear(width, embedding, bias=False)

    def heights(self) -> dict[str, list[int]]:
        """Rows of the matrices that stand beneath each other in the weight of each linear layer, by its name."""
        width, embedding = self.width, self.output.out_features
        return {
            "first_state": [width], "word": [width] * 3 + [embedding], "source": [width] * 4 + [embedding],
            "state_gates": [width] * 3, "query_and_gates": [width] * 4, "output": [embedding],
        }  # fmt: skip

    def initialise(self, generator: torch.Generator) -> None:
        """Glorot uniform, each matrix among those that lie beneath each other for itself; biases zero."""
        for name, heights in self.heights().items():
            linear = cast(nn.Linear, self.get_submodule(name))
            for part in linear.weight.split_with_sizes(heights):
                glorot(part, generator)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        glorot(self.attention[None], generator)
        if self.upper is not None:
            initialise_gru(self.upper, generator)

    def project(self, memory: Tensor, lengths: Tensor, mask: Tensor | None) -> tuple[ProjectedSource, Tensor]:
        """The source as the decoder uses it, and its first state (sentences, dim_rnn).

        Args:
            memory: the encoder's output (sentences, source_length, 2 dim_rnn), zero at padding.
            lengths: (sentences,).
            mask: as in `ProjectedSource`.
        """
        mean = memory.sum(dim=1) / lengths[:, None]
        keys, gates, output = self.source(memory).split_with_sizes(
            [self.width, 3 * self.width, self.output.out_features], dim=2
        )
        return ProjectedSource(keys.contiguous(), gates.contiguous(), output, mask), torch.tanh(self.first_state(mean))

    def forward(self, words: Tensor, source: ProjectedSource, hidden: Tensor) -> Tensor:
        """The output layer (sentences, target_length, dim_emb) after each of the given words.

        Args:
            words: embedded, zero at the first position, (target_length, sentences, dim_emb).
            hidden: the first state, (sentences, dim_rnn).
        """
        gates, part = self._split(self.word(words))
        first, states, weights = hidden, [], []
        for position in gates.unbind(0):
            hidden, weight = self._advance(position, hidden, source)
            states.append(hidden)
            weights.append(weight)
        top = torch.stack(states)
        if self.upper is not None:
            top, _ = self.upper(self._drop(top), self._repeated(first))
        context = torch.cat(weights, dim=1) @ source.output
        return torch.tanh((part + self.output(self._drop(top))).transpose(0, 1) + context)

    def start(self, source: ProjectedSource, hidden: Tensor) -> RecurrentState:
        """The state before the first word; ``hidden`` (sentences, dim_rnn)."""
        layers = [hidden[None]] if self.upper is None else [hidden[None], self._repeated(hidden)]
        return RecurrentState(source, torch.cat(layers))

    def step(self, state: RecurrentState, words: Tensor) -> Tensor:
        """The output layer (rows, dim_emb) after the embedded words (rows, dim_emb); the state goes on."""
        gates, part = self._split(self.word(words))
        hidden, weight = self._advance(gates, state.hidden[0], state.source)
        if state.noting:
            state.note(weight)
        top = hidden
        if self.upper is None:
            state.hidden = hidden[None]
        else:
            above, last = self.upper(self._drop(hidden[None]), state.hidden[1:].contiguous())
            top = above[0]
            state.hidden = torch.cat([hidden[None], last])
        context = (weight @ state.source.output).view(len(words), -1)
        return torch.tanh(part + self.output(self._drop(top)) + context)

    def _advance(self, gates: Tensor, hidden: Tensor, source: ProjectedSource) -> tuple[Tensor, Tensor]:
        """One position: the new states (rows, dim_rnn) and attention weights (sentences, beam, source_length)."""
        sentences = len(source.keys)
        asking = gru_cell(gates, self.state_gates(hidden), hidden)
        query, own = self.query_and_gates(asking).split_with_sizes([self.width, 3 * self.width], dim=1)
        weights = additive_attention(query.view(sentences, -1, self.width), source.keys, self.attention, source.mask)
        read = (weights @ source.gates).view(len(hidden), -1)
        return gru_cell(read, own, asking), weights

    def _split(self, word: Tensor) -> tuple[Tensor, Tensor]:
        gates, part = word.split_with_sizes([3 * self.width, self.output.out_features], dim=-1)
        return gates, part

    def _repeated(self, hidden: Tensor) -> Tensor:
        assert self.upper is not None
        return hidden.expand(self.upper.num_layers, -1, -1).contiguous()

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class RecurrentModel(TrainableModel):
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

    def stacks(self) -> dict[str, Stack]:
        """As in `Stacked`: each gate of a cell for itself."""
        found = {f"decoder.{name}.weight": Stack(tuple(rows)) for name, rows in self.decoder.heights().items()}
        grus = {name: module for name, module in self.named_modules() if isinstance(module, nn.GRU)}
        for name, gru in grus.items():
            weights = (inner for inner, _ in gru.named_parameters() if inner.startswith("weight"))
            found |= {f"{name}.{inner}": Stack((gru.hidden_size,) * 3) for inner in weights}
        return found

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Sets all parameters anew, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        initialise_gru(self.encoder, generator)
        self.decoder.initialise(generator)
        for matrix in once((self.source_embedding, self.target_embedding, self.output_weight)):
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
        return F.linear(hidden, self.output_weight, self.output_bias)

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As in `TrainableModel`."""
        source, hidden = self.encode(batch.source, batch.source_lengths)
        previous = F.embedding(batch.target.t()[:-1], self.target_embedding)
        words = self._drop(F.pad(previous, (0, 0, 0, 0, 1, 0)))
        output = self.decoder(words, source, hidden)
        real = padding_mask(batch.target_lengths, batch.target.shape[1])
        return self._drop(output[real]), batch.target[real]

    def start(self, source: Tensor, source_lengths: Tensor) -> RecurrentState:
        """The decoder's state before the first subword; see `nmt_async.model.translation_model.TranslationModel`."""
        return self.decoder.start(*self.encode(source, source_lengths))

    def step(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """The next subword's logits; see `nmt_async.model.translation_model.TranslationModel`."""
        state = cast(RecurrentState, state)
        if previous is None:
            words = self.target_embedding.new_zeros(state.hidden.shape[1], self.target_embedding.shape[1])
        else:
            words = F.embedding(previous, self.target_embedding)
        return self.logits(self.decoder.step(state, self._drop(words)))
