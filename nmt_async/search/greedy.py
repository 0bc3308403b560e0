"""Greedy search: the likeliest subword, again and again, until that is the end mark or the longest length is reached.

It finds what a beam search with one hypothesis finds, without the bookkeeping of one that may have several. Where no
scores are wanted, the likeliest subword is that of the largest logit, and no probability is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.model.translation_model import TranslationModel, compact
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
    scored: bool = True,
) -> list[list[Hypothesis]]:
    """The one translation of each sentence.

    Args:
        source, source_lengths, prefixes: as for `nmt_async.search.beam.beam_search`.
        search: with a beam of one.
        scored: with scores; else they are nan.
    """
    judge = model.log_probabilities if scored else model.step
    constraints = Constraints(search, source_lengths, prefixes)
    state = model.start(source, source_lengths)
    if search.alignment:
        state.note_attention()
    index = torch.arange(len(source), device=source.device)
    scores = torch.zeros(len(source), 1, device=source.device)
    parents = torch.zeros_like(scores, dtype=torch.int64)
    written = source.new_empty(len(source), 0) if search.no_repeat_ngram_size else None
    previous: Tensor | None = None
    steps: list[Step] = []
    while len(index):
        worth = judge(state, previous)
        position = len(steps) + 1
        at_limit = constraints.apply(worth, position, written)
        subwords = likeliest(worth)
        scores = scores + worth.gather(1, subwords)
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
            index, scores, parents, subwords = (
                tensor.index_select(0, kept) for tensor in (index, scores, parents, subwords)
            )
            written = None if written is None else written.index_select(0, kept)
            constraints.keep(kept)
            state.keep(kept)
        previous = subwords[:, 0]
    found = best_hypotheses(steps, source_lengths, 1)
    return found if scored else [[Hypothesis(best.ids, math.nan, math.nan, (), best.alignment)] for (best,) in found]


def likeliest(worth: Tensor) -> Tensor:
    """The largest number's place in each row, (rows, 1), int64; the first of several.

    Args:
        worth: (rows, vocabulary).
    """
    if worth.device.type != "cpu" or worth.dtype == torch.bfloat16:
        return worth.argmax(dim=1, keepdim=True)
    return torch.from_numpy(worth.detach().numpy().argmax(axis=1))[:, None]  # in a tenth of the time that torch takes
