"""Greedy search: the likeliest subword, again and again, until that is the end mark or the longest length is reached.

It finds what a beam search with one hypothesis finds, without the bookkeeping of one that may have several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.model.translation_model import TranslationModel, compact
from nmt_async.search.beam import best_continuations
from nmt_async.search.constraints import Constraints
from nmt_async.search.options import Search
from nmt_async.search.trace import Hypothesis, Step, best_hypotheses
from nmt_async.text.vocabulary import END


def greedy_search(
    model: TranslationModel,
    source: Tensor,
    source_lengths: Tensor,
    search: Search,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """The one translation of each sentence.

    Args:
        source, source_lengths, prefixes: as for `nmt_async.search.beam.beam_search`.
        search: with a beam of one.
    """
    constraints = Constraints(search, source_lengths, prefixes)
    state = model.start(source, source_lengths)
    if search.alignment:
        state.note_attention()
    index = torch.arange(len(source), device=source.device)
    scores = torch.zeros(len(source), 1, device=source.device)
    written = source.new_empty(len(source), 0) if search.no_repeat_ngram_size else None
    previous: Tensor | None = None
    steps: list[Step] = []
    while len(index):
        log_probabilities = model.log_probabilities(state, previous)
        position = len(steps) + 1
        at_limit = constraints.apply(log_probabilities, position, written)
        scores, parents, subwords = best_continuations(log_probabilities[:, None], scores, 1)
        # A translation that has no continuation does not end, and nothing comes of it.
        ends = (subwords == END) & (scores > -math.inf)
        attention = state.attention if search.alignment else None
        ranked = search.penalties.ranked(scores, position)
        steps.append(Step(index, scores, ranked, parents, ends, parents, subwords, scores, attention))
        if written is not None:
            written = torch.cat([written, subwords], dim=1)
        finished = ends[:, 0] if at_limit is None else ends[:, 0] | at_limit
        if bool(finished.any()):
            kept = compact(finished)
            index, scores, subwords = (tensor.index_select(0, kept) for tensor in (index, scores, subwords))
            written = None if written is None else written.index_select(0, kept)
            constraints.keep(kept)
            state.keep(kept)
        previous = subwords[:, 0]
    return best_hypotheses(steps, source_lengths, 1)
