"""Translations drawn at random from the model's distribution, subword by subword.

What is drawn for a sentence depends on the seed, the sentence and the number of the sample alone: not on the batch
the sentence is in, on its place in the input or on how many samples are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt_async.model.translation_model import TranslationModel, compact
from nmt_async.search.constraints import Constraints
from nmt_async.search.options import NUCLEUS, TOP_K, SamplingMethod, Search
from nmt_async.search.trace import Hypothesis, Step, best_hypotheses
from nmt_async.text.vocabulary import END


def sample(
    model: TranslationModel,
    source: Tensor,
    source_lengths: Tensor,
    search: Search,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """`Search.wanted` translations of each sentence, independent of each other, the best first.

    Scores are log-probabilities under the model, whatever the temperature. A constraint (`Constraints`) takes
    subwords away before one is drawn.

    Args:
        source, source_lengths, prefixes: as for `nmt_async.search.beam.beam_search`.
    """
    method = search.output_sampling
    assert method is not None
    penalties, constraints = search.penalties, Constraints(search, source_lengths, prefixes)
    chances = _chances(source, source_lengths, search, int(constraints.limits.max()))
    index = torch.arange(len(source), device=source.device)
    alive = torch.ones(len(source), search.wanted, dtype=torch.bool, device=source.device)
    scores = torch.zeros(len(source), search.wanted, device=source.device)
    written = source.new_empty(len(source), search.wanted, 0) if search.no_repeat_ngram_size else None
    state = model.start(source, source_lengths)
    if search.alignment:
        state.note_attention()
    previous: Tensor | None = None
    steps: list[Step] = []
    while len(index):
        log_probabilities = model.log_probabilities(state, previous)
        # The first step has one hypothesis a sentence, from which all samples go on.
        parents = torch.arange(search.wanted, device=source.device).clamp(max=state.beam - 1).expand_as(alive)
        attention = state.attention if search.alignment else None
        if state.beam != search.wanted:
            log_probabilities = log_probabilities.repeat_interleave(search.wanted, dim=0)
            state.reorder(parents)
        position = len(steps) + 1
        constraints.apply(log_probabilities, position, None if written is None else written.flatten(0, 1))
        drawn = draw(method, log_probabilities, chances[:, :, position - 1].flatten())
        scores = scores + log_probabilities.gather(1, drawn[:, None]).view_as(scores)
        subwords = drawn.view_as(scores)
        # Of a sample that has no continuation nothing comes.
        ends = (subwords == END) & alive & (scores > -math.inf)
        alive = alive & (subwords != END) & (scores > -math.inf)
        ranked = penalties.ranked(scores, position)
        steps.append(Step(index, scores, ranked, parents, ends, parents, subwords, scores, attention))
        if written is not None:
            written = torch.cat([written, subwords[:, :, None]], dim=2)
        finished = ~alive.any(dim=1)
        if bool(finished.any()):
            kept = compact(finished)
            index, alive, scores, subwords, chances = (
                tensor.index_select(0, kept) for tensor in (index, alive, scores, subwords, chances)
            )
            written = None if written is None else written.index_select(0, kept)
            constraints.keep(kept)
            state.keep(kept)
        previous = subwords.reshape(-1)
    return best_hypotheses(steps, source_lengths, search.wanted)


def draw(method: SamplingMethod, log_probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A subword for each row, (rows,), int64: the one at which the cumulated probability passes ``uniform``.

    Args:
        method: says of which subwords.
        log_probabilities: (rows, vocabulary), minus infinity where a subword is forbidden.
        uniform: (rows,), float64, from 0 to below 1.
    """
    index: Tensor | None = None
    if method.kind == TOP_K:
        log_probabilities, index = log_probabilities.topk(min(method.top_k, log_probabilities.shape[1]), dim=1)
    elif method.kind == NUCLEUS:
        log_probabilities, index = log_probabilities.sort(dim=1, descending=True)
        probabilities = torch.softmax(log_probabilities.double(), dim=1)
        outside = probabilities.cumsum(dim=1) - probabilities >= method.top_p
        log_probabilities = log_probabilities.masked_fill(outside, -math.inf)
    # The likeliest at 0: a temperature near 0 would make all of them minus infinity otherwise.
    relative = log_probabilities.double() - log_probabilities.amax(dim=1, keepdim=True)
    cumulated = torch.softmax(relative / method.temperature, dim=1).cumsum(dim=1)
    passed = cumulated <= uniform[:, None] * cumulated[:, -1:]
    place = passed.sum(dim=1).clamp(max=cumulated.shape[1] - 1)
    return place if index is None else index.gather(1, place[:, None]).squeeze(1)


def _chances(source: Tensor, source_lengths: Tensor, search: Search, longest: int) -> Tensor:
    """Numbers from 0 to below 1 for each subword of each sample, (sentences, wanted, longest), float64."""
    chances = np.empty((len(source), search.wanted, longest))
    for sentence, (ids, length) in enumerate(zip(source.tolist(), source_lengths.tolist(), strict=True)):
        for number in range(search.wanted):
            chances[sentence, number] = np.random.default_rng([search.seed, number, *ids[:length]]).random(longest)
    return torch.from_numpy(chances).to(source.device)
