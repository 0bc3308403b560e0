"""Batched beam search; with one hypothesis it is greedy search.

All sentences of a batch go on together; a sentence leaves the batch when its search is over. Length
normalisation is Marian's: the summed log-probability, end mark included, is divided by length^alpha, the length
counting the end mark. As in Marian, ``<unk>`` is never produced.

The search for a sentence is over when as many hypotheses have ended as its beam is wide, or when the best that
ended cannot be overtaken if only that one is wanted. A hypothesis ends when its end mark is among the ``beam_size``
best continuations of the step; at the length limit all end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.decoding.candidates import best_continuations
from nmt_async.model.decoder_state import TranslationModel, compact
from nmt_async.text.batch import END, UNKNOWN


@dataclass(frozen=True)
class Hypothesis:
    """A translation as subwords.

    Attributes:
        ids: its subwords, without the end mark.
        score: its summed log-probability, the end mark's included, in nats.
        normalised: the score divided by length^alpha; what hypotheses are ranked by.
    """

    ids: tuple[int, ...]
    score: float
    normalised: float


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        beam_size: hypotheses followed for each sentence.
        normalize: alpha, the exponent of the length; 0 ranks by summed log-probabilities.
        max_length_factor: a translation has at most this many times its source's subwords,
        extra_length: and so many more.
        wanted: hypotheses to return for a sentence, at most ``beam_size``.
    """

    beam_size: int = 5
    normalize: float = 0.6
    max_length_factor: float = 3.0
    extra_length: int = 10
    wanted: int = 1

    def limits(self, source_lengths: Tensor) -> Tensor:
        """Longest translations, end mark counted, for sources of these lengths, both (sentences,), int64."""
        return (source_lengths * self.max_length_factor).long() + self.extra_length


def beam_search(
    model: TranslationModel, source: Tensor, source_lengths: Tensor, search: Search
) -> list[list[Hypothesis]]:
    """Translations of each sentence, best first: `Search.wanted` or fewer, at least one.

    Args:
        source: (sentences, source_length), int64, each row with its end mark.
        source_lengths: (sentences,), int64, counting the end mark.
    """
    ended: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    beams = _Beams(model, source, source_lengths, search)
    while len(beams.index):
        beams.step(ended)
    for hypotheses in ended:
        hypotheses.sort(key=lambda hypothesis: -hypothesis.normalised)
        del hypotheses[search.wanted :]
        if not hypotheses:  # only where the model's output is not finite
            hypotheses.append(Hypothesis((), -math.inf, -math.inf))
    return ended


class _Beams:
    """The hypotheses of the sentences still searched for.

    Attributes:
        index: (sentences,), which sentences of the batch these are.
        limits: (sentences,), their longest translations.
        scores: (sentences, beam), summed log-probabilities.
        prefixes: (sentences, beam, position), subwords so far.
        counts: (sentences,), hypotheses that have ended.
        best: (sentences,), the best normalised score among them.
        previous: (sentences * beam,), the subwords chosen last; None before the first.
    """

    def __init__(self, model: TranslationModel, source: Tensor, source_lengths: Tensor, search: Search) -> None:
        device = source.device
        self.model = model
        self.search = search
        self.state = model.start(source, source_lengths)
        self.index = torch.arange(len(source), device=device)
        self.limits = search.limits(source_lengths)
        self.shortest_limit = int(self.limits.min())
        self.scores = torch.zeros(len(source), 1, device=device)
        self.prefixes = source.new_empty(len(source), 1, 0)
        self.counts = torch.zeros(len(source), dtype=torch.int64, device=device)
        self.best = torch.full((len(source),), -math.inf, device=device)
        self.position = 0
        self.previous: Tensor | None = None

    def step(self, ended: list[list[Hypothesis]]) -> None:
        """One subword more for all; adds the hypotheses that end to ``ended`` (by sentence of the batch)."""
        search = self.search
        logits = self.model.step(self.state, self.previous)
        self.position += 1
        beam, vocabulary = self.state.beam, logits.shape[1]
        next_beam = max(1, min(search.beam_size, beam * (vocabulary - 2)))
        log_probabilities = torch.log_softmax(logits, dim=1)
        at_limit = self._forbid(log_probabilities)
        values, parents, subwords = best_continuations(
            log_probabilities.view(-1, beam, vocabulary), self.scores, min(next_beam + beam, beam * vocabulary)
        )
        is_end = subwords == END
        ends = is_end & (values > -math.inf)
        ends[:, search.beam_size :] = False
        self._collect(ends, values, parents, ended)

        # A beam has at most ``beam`` ends among its continuations, so enough of the others stand before them.
        going_on = is_end.byte().argsort(dim=1, stable=True)[:, :next_beam]
        self.scores, parents, subwords = (x.gather(1, going_on) for x in (values, parents, subwords))
        if beam > 1 or next_beam > 1:
            self.state.reorder(parents)
        self.prefixes = self.prefixes.gather(1, parents[:, :, None].expand(-1, -1, self.position - 1))
        self.prefixes = torch.cat([self.prefixes, subwords[:, :, None]], dim=2)
        self._drop_finished(at_limit)

    def _forbid(self, log_probabilities: Tensor) -> Tensor | None:
        """Forbids ``<unk>`` everywhere and all but the end at the length limit; which sentences are there, if any."""
        log_probabilities[:, UNKNOWN] = -math.inf
        if self.position < self.shortest_limit:
            return None
        at_limit = self.position >= self.limits
        end = log_probabilities[:, END].clone()
        log_probabilities.masked_fill_(at_limit.repeat_interleave(self.state.beam)[:, None], -math.inf)
        log_probabilities[:, END] = end
        return at_limit

    def _collect(self, ends: Tensor, values: Tensor, parents: Tensor, ended: list[list[Hypothesis]]) -> None:
        """Notes the continuations (sentences, count) that are ends."""
        normalised = values / self.position**self.search.normalize
        self.counts += ends.sum(dim=1)
        self.best = torch.maximum(self.best, normalised.masked_fill(~ends, -math.inf).amax(dim=1))
        sentences, places = ends.nonzero(as_tuple=True)
        rows = zip(
            self.index[sentences].tolist(),
            self.prefixes[sentences, parents[sentences, places]].tolist(),
            values[sentences, places].tolist(),
            normalised[sentences, places].tolist(),
            strict=True,
        )
        for sentence, prefix, score, normalised_score in rows:
            ended[sentence].append(Hypothesis(tuple(prefix), score, normalised_score))

    def _drop_finished(self, at_limit: Tensor | None) -> None:
        """Takes the sentences whose search is over out of the batch."""
        finished = self.counts >= self.search.beam_size
        if at_limit is not None:
            finished |= at_limit
        if self.search.wanted == 1:
            # Scores only fall, and no length divides them by more than the limit does.
            finished |= self.best >= self.scores[:, 0] / self.limits**self.search.normalize
        if bool(finished.any()):
            kept = compact(finished)
            for name in ("index", "limits", "scores", "prefixes", "counts", "best"):
                setattr(self, name, getattr(self, name).index_select(0, kept))
            self.state.keep(kept)
        self.previous = self.prefixes[:, :, -1].reshape(-1)
