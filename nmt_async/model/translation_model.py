"""What a model offers to a search: a start from source sentences, then one subword at a time.

A search follows several hypotheses of several sentences at once. Their rows stand sentence by sentence: with
``beam`` hypotheses a sentence, row ``s * beam + b`` is hypothesis ``b`` of sentence ``s``. The source side of a state
exists once for each sentence, however many hypotheses it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nmt_async.text.batch import Batch


class DecoderState(ABC):
    """What a decoder remembers of its hypotheses between two steps; changed in place."""

    sentences: int
    beam: int

    @abstractmethod
    def reorder(self, parents: Tensor) -> None:
        """Makes hypothesis ``b`` of sentence ``s`` go on from its hypothesis ``parents[s, b]``.

        Args:
            parents: (sentences, new_beam), int64, each below `beam`; `beam` becomes ``new_beam``.
        """

    @abstractmethod
    def keep(self, kept: Tensor) -> None:
        """Forgets all sentences but ``kept`` (remaining,), int64, and puts those in this order.

        It is cheap where most of them stay at their place, as `compact` arranges it.
        """

    @abstractmethod
    def note_attention(self) -> None:
        """From the next step on, `attention` is noted; without this, nothing is computed for it."""

    @property
    @abstractmethod
    def attention(self) -> Tensor | None:
        """What share of attention each source position had in the last step, (sentences, beam, source_length).

        Of the hypotheses as they stood at that step; 0 at padding. None if it is not noted.
        """


class TranslationModel(nn.Module, ABC):
    """A model that a search can drive."""

    @abstractmethod
    def start(self, source: Tensor, source_lengths: Tensor) -> DecoderState:
        """The state before the first subword, one hypothesis a sentence.

        Args:
            source: (sentences, source_length), int64, each row with its end mark.
            source_lengths: (sentences,), int64, counting the end mark.
        """

    @abstractmethod
    def step(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """Logits (rows, vocabulary) of the next subword of every hypothesis.

        Args:
            state: of this model; it goes one position on.
            previous: (rows,), int64, the subwords that the hypotheses chose last; None at the first step.
        """

    def log_probabilities(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """As `step`, but log-probabilities: what a search sums up, and may change."""
        return torch.log_softmax(self.step(state, previous), dim=1)


class TrainableModel(TranslationModel):
    """A model that is trained on batches, and that a search can drive.

    Attributes:
        output_weight, output_bias: of the layer that makes logits, (vocabulary, d) and (vocabulary,).
    """

    output_weight: nn.Parameter
    output_bias: nn.Parameter

    @abstractmethod
    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the output layer makes logits of, for every target token of the batch, padding left out.

        Returns:
            (tokens, d), and the correct subwords (tokens,), in the order of rows, then positions.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised log-probabilities (…, vocabulary) of (…, d)."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predictions for every target token of the batch.

        Returns:
            Logits (tokens, vocabulary) and the correct subwords (tokens,), as of `hidden`.
        """
        hidden, targets = self.hidden(batch)
        return self.logits(hidden), targets


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout; afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def compact(finished: Tensor) -> Tensor:
    """The sentences that remain, in an order in which only as many as fill the gaps change their place.

    Args:
        finished: (sentences,), bool.

    Returns:
        (remaining,), int64, for `DecoderState.keep`.
    """
    remaining = int((~finished).sum())
    kept = torch.arange(remaining, device=finished.device)
    kept[finished[:remaining]] = (~finished[remaining:]).nonzero().squeeze(1) + remaining
    return kept


def new_places(kept: Tensor) -> Tensor:
    """Where among the ``kept`` (remaining,), int64, stands one that stood elsewhere before; few after `compact`."""
    return (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
