"""What a search did, step by step, and the translations it came to.

A step notes which hypotheses went on, from which and with what, and which ended; it copies nothing. Only the
translations that are wanted are followed back, all at once, when the search is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """A translation as subwords.

    Attributes:
        ids: its subwords, without the end mark.
        score: its summed log-probability, the end mark's included, in nats.
        normalised: the score after penalties, what hypotheses are ranked by (`nmt_async.search.penalties`).
        token_scores: log-probability of each subword, then of the end mark; ``score`` is their sum.
        alignment: for each subword, then the end mark, what share of attention each of the source's subwords
            and its end mark had; None if not asked for.
    """

    ids: tuple[int, ...]
    score: float
    normalised: float
    token_scores: tuple[float, ...] = ()
    alignment: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Step:
    """One step of a search over the sentences that were still in it.

    Attributes:
        sentences: which of the batch they are, (sentences,), int64.
        values: summed log-probabilities of the best continuations, (sentences, continuations).
        ranked: the same after penalties.
        parents: the hypotheses that they continue.
        ends: which of them are translations that have ended, bool.
        next_parents, next_subwords, next_values: of the hypotheses that go on, (sentences, beam).
        attention: of the hypotheses before the step, (sentences, beam, source_length); None if not asked for.
    """

    sentences: Tensor
    values: Tensor
    ranked: Tensor
    parents: Tensor
    ends: Tensor
    next_parents: Tensor
    next_subwords: Tensor
    next_values: Tensor
    attention: Tensor | None


def best_hypotheses(steps: list[Step], source_lengths: Tensor, wanted: int) -> list[list[Hypothesis]]:
    """The translations of each sentence, best first: ``wanted`` or fewer, at least one.

    Where none ended, because no output of the model was finite or everything was forbidden, it is the empty one with
    minus infinity as its score.

    Args:
        steps: of the whole search; a hypothesis that went on is a parent of the next step.
        source_lengths: (sentences,), int64, counting the end mark.
    """
    ended = _Ended(steps, wanted)
    ended.follow_back(steps)
    found: list[list[Hypothesis]] = [[] for _ in source_lengths]
    lengths = source_lengths.tolist()
    for number, sentence in enumerate(ended.sentence.tolist()):
        found[sentence].append(ended.hypothesis(number, lengths[sentence]))
    return [hypotheses or [Hypothesis((), -math.inf, -math.inf)] for hypotheses in found]


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array


class _Ended:
    """The best translations of all sentences, sentence by sentence.

    Attributes:
        sentence: of each translation, (translations,),
        last: its last step, where its end mark was chosen,
        parent: the hypothesis that the end mark continued,
        ranked: what it is ranked by.
        scores: summed log-probabilities up to each of its subwords, (translations, steps); the end mark's at `last`.
        ids: its subwords, alike.
        attention: alike, (translations, steps, source_length); None if not asked for.
    """

    def __init__(self, steps: list[Step], wanted: int) -> None:
        parts = []
        for number, step in enumerate(steps):
            ends, ranked = _array(step.ends), _array(step.ranked)
            rows, places = ends.nonzero()
            parts.append(
                (
                    _array(step.sentences)[rows], np.full(len(rows), number), _array(step.parents)[rows, places],
                    _array(step.values)[rows, places].astype(np.float64), ranked[rows, places].astype(np.float64),
                )
            )  # fmt: skip
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.lexsort((-columns[4], columns[0]))  # stable: of equal ones, the first that ended
        by_sentence = columns[0][order]
        rank = np.arange(len(order)) - np.searchsorted(by_sentence, by_sentence)
        self.sentence, self.last, self.parent, values, self.ranked = (
            column[order[rank < wanted]] for column in columns
        )
        count = len(self.sentence)
        self.scores = np.zeros((count, len(steps)))
        self.scores[np.arange(count), self.last] = values
        self.ids = np.zeros((count, len(steps)), dtype=np.int64)
        self.attention: np.ndarray | None = None

    def follow_back(self, steps: list[Step]) -> None:
        """Fills what each translation came from, the last step first."""
        hypothesis, row_of = self.parent.copy(), np.zeros(int(steps[0].sentences.max()) + 1, dtype=np.int64)
        if steps[0].attention is not None:
            self.attention = np.zeros((*self.ids.shape, steps[0].attention.shape[2]))
        for number in reversed(range(len(steps))):
            step = steps[number]
            going = (self.last > number).nonzero()[0]
            sentences = _array(step.sentences)
            row_of[sentences] = np.arange(len(sentences))
            rows = row_of[self.sentence[going]]
            before = hypothesis[going]
            self.ids[going, number] = _array(step.next_subwords)[rows, before]
            self.scores[going, number] = _array(step.next_values)[rows, before]
            hypothesis[going] = _array(step.next_parents)[rows, before]
            if step.attention is not None and self.attention is not None:
                there = (self.last >= number).nonzero()[0]
                looked = _array(step.attention)[row_of[self.sentence[there]], hypothesis[there]]
                self.attention[there, number, : looked.shape[1]] = looked

    def hypothesis(self, number: int, source_length: int) -> Hypothesis:
        """The translation ``number``, whose source has ``source_length`` subwords with its end mark."""
        last = int(self.last[number])
        scores = self.scores[number, : last + 1]
        alignment = None
        if self.attention is not None:
            rows = self.attention[number, : last + 1, :source_length].tolist()
            alignment = tuple(tuple(row) for row in rows)
        return Hypothesis(
            tuple(self.ids[number, :last].tolist()), float(scores[-1]), float(self.ranked[number]),
            tuple(np.diff(scores, prepend=0.0).tolist()), alignment,
        )  # fmt: skip
