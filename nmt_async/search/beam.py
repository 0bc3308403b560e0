"""Batched beam search; with one hypothesis it finds what greedy search does (`nmt_async.search.greedy`), but later.

All sentences of a batch go on together; a sentence leaves the batch when its search is over. Length
normalisation and word penalty are Marian's (`nmt_async.search.penalties`). As in Marian, ``<unk>`` is not produced
unless that is allowed.

A hypothesis ends when its end mark is among the ``beam_size`` best continuations of the step; at the length limit all
end. The search for a sentence is over when as many hypotheses have ended as its beam is wide and those that are wanted
rank as high as the best that goes on would, if it ended where it is; the number alone would let a few unlikely early
ends cut a translation short. It is over sooner where only one is wanted and that cannot be overtaken.
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

BLOCK = 64
"""Subwords that are first judged by the best among them: sorting the blocks' maxima is far cheaper than sorting all."""


def best_continuations(log_probabilities: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best continuations of each sentence's hypotheses, best first.

    The best ones lie in the blocks with the highest maxima, so only those blocks are looked into.

    Args:
        log_probabilities: (sentences, beam, vocabulary), of the next subword; minus infinity where it is forbidden.
        scores: (sentences, beam), the hypotheses' summed log-probabilities.

    Returns:
        Summed log-probabilities, the hypotheses continued and the subwords chosen, each (sentences, count).
    """
    sentences, beam, vocabulary = log_probabilities.shape
    blocks = vocabulary // BLOCK
    if beam * blocks <= count:
        values, index = (log_probabilities + scores[:, :, None]).view(sentences, -1).topk(count)
        return values, index // vocabulary, index % vocabulary
    blocked = log_probabilities[:, :, : blocks * BLOCK].view(sentences, beam, blocks, BLOCK)
    maxima = (blocked.amax(dim=3) + scores[:, :, None]).view(sentences, -1)
    chosen = maxima.topk(count, sorted=False).indices
    parents, block = chosen // blocks, chosen % blocks
    rows = torch.arange(sentences, device=scores.device)[:, None]
    inside = (blocked[rows, parents, block] + scores.gather(1, parents)[:, :, None]).view(sentences, -1)
    rest = vocabulary - blocks * BLOCK
    tail = (log_probabilities[:, :, blocks * BLOCK :] + scores[:, :, None]).view(sentences, -1)
    values, index = torch.cat([inside, tail], dim=1).topk(count)
    where = index.clamp(max=count * BLOCK - 1)
    parent = parents.gather(1, where // BLOCK)
    subword = block.gather(1, where // BLOCK) * BLOCK + where % BLOCK
    if rest:
        in_tail = index >= count * BLOCK
        beyond = (index - count * BLOCK).clamp(min=0)
        parent = torch.where(in_tail, beyond // rest, parent)
        subword = torch.where(in_tail, blocks * BLOCK + beyond % rest, subword)
    return values, parent, subword


def beam_search(
    model: TranslationModel,
    source: Tensor,
    source_lengths: Tensor,
    search: Search,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """Translations of each sentence, best first: `Search.wanted` or fewer, at least one.

    Args:
        source: (sentences, source_length), int64, each row with its end mark.
        source_lengths: (sentences,), int64, counting the end mark.
        prefixes: for each sentence the subwords with which its translations begin, perhaps none; a score counts them.
    """
    beams = _Beams(model, source, source_lengths, search, prefixes)
    while len(beams.index):
        beams.step()
    return best_hypotheses(beams.steps, source_lengths, search.wanted)


class _Beams:
    """The hypotheses of the sentences still searched for.

    Attributes:
        index: (sentences,), which sentences of the batch these are.
        scores: (sentences, beam), summed log-probabilities.
        counts: (sentences,), hypotheses that have ended.
        best: (sentences, `Search.wanted`), what the best among them are ranked by, best first.
        previous: (sentences * beam,), the subwords chosen last; None before the first.
        written: (sentences, beam, position), subwords so far; None where no constraint asks for them.
        steps: what was done, for `best_hypotheses`.
    """

    def __init__(
        self,
        model: TranslationModel,
        source: Tensor,
        source_lengths: Tensor,
        search: Search,
        prefixes: Sequence[Sequence[int]] | None,
    ) -> None:
        device = source.device
        self.model = model
        self.search = search
        self.penalties = search.penalties
        self.constraints = Constraints(search, source_lengths, prefixes)
        self.state = model.start(source, source_lengths)
        if search.alignment:
            self.state.note_attention()
        self.index = torch.arange(len(source), device=device)
        self.scores = torch.zeros(len(source), 1, device=device)
        self.counts = torch.zeros(len(source), dtype=torch.int64, device=device)
        self.best = torch.full((len(source), search.wanted), -math.inf, device=device)
        self.written = source.new_empty(len(source), 1, 0) if search.no_repeat_ngram_size else None
        self.position = 0
        self.previous: Tensor | None = None
        self.steps: list[Step] = []

    def step(self) -> None:
        """One subword more for all."""
        log_probabilities = self.model.log_probabilities(self.state, self.previous)
        self.position += 1
        beam, vocabulary = self.state.beam, log_probabilities.shape[1]
        next_beam = max(1, min(self.search.beam_size, beam * (vocabulary - 1)))
        written = None if self.written is None else self.written.flatten(0, 1)
        at_limit = self.constraints.apply(log_probabilities, self.position, written)
        values, parents, subwords = best_continuations(
            log_probabilities.view(-1, beam, vocabulary), self.scores, min(next_beam + beam, beam * vocabulary)
        )
        is_end = subwords == END
        ends = is_end & (values > -math.inf)
        ends[:, self.search.beam_size :] = False
        ranked = self.penalties.ranked(values, self.position)
        self.counts += ends.sum(dim=1)
        ended = ranked.masked_fill(~ends, -math.inf)
        self.best = torch.cat([self.best, ended], dim=1).topk(self.search.wanted, dim=1).values

        # A beam has at most ``beam`` ends among its continuations, so enough of the others stand before them.
        going_on = is_end.byte().argsort(dim=1, stable=True)[:, :next_beam]
        self.scores, from_which, chosen = (x.gather(1, going_on) for x in (values, parents, subwords))
        attention = self.state.attention if self.search.alignment else None
        self.steps.append(
            Step(self.index, values, ranked, parents, ends, from_which, chosen, self.scores, attention)
        )  # fmt: skip
        if beam > 1 or next_beam > 1:
            self.state.reorder(from_which)
        if self.written is not None:
            past = self.written.gather(1, from_which[:, :, None].expand(-1, -1, self.position - 1))
            self.written = torch.cat([past, chosen[:, :, None]], dim=2)
        self._drop_finished(at_limit, chosen)

    def _drop_finished(self, at_limit: Tensor | None, chosen: Tensor) -> None:
        """Takes the sentences whose search is over out of the batch."""
        going_on = self.scores[:, 0]
        finished = self.counts >= self.search.beam_size
        finished &= self.best[:, -1] >= self.penalties.ranked(going_on, self.position)
        if at_limit is not None:
            finished |= at_limit
        if self.search.wanted == 1:
            finished |= self.best[:, 0] >= self.penalties.bound(going_on, self.position + 1, self.constraints.limits)
        if bool(finished.any()):
            kept = compact(finished)
            for name in ("index", "scores", "counts", "best", "written"):
                if getattr(self, name) is not None:
                    setattr(self, name, getattr(self, name).index_select(0, kept))
            self.constraints.keep(kept)
            self.state.keep(kept)
            chosen = chosen.index_select(0, kept)
        self.previous = chosen.reshape(-1)
