"""The batch plan: which sentences make up which batch of which epoch.

A pure function of sentence lengths, budget, seed and epoch: every process that asks computes the same plan, so a
batch is named by (epoch, index) alone. Sentences are shuffled, sorted by length inside large windows so that a
batch holds little padding, cut at the budget of target tokens, or where no more has room in memory, and the batches of
a window are shuffled again. A batch is what one push holds: where workers sum several locally, it has as many parts.

An epoch holds each sentence once, or, where corpora are mixed by weights, those whose turn it is
(`nmt_async.text.mixture`), which is a pure function of seed and epoch, too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmt_async.text.mixture import Mixture

WINDOW = 1 << 20
"""Sentences sorted together; a corpus below it is sorted whole. An epoch takes 4 bytes a sentence, and as many again
while it is made."""


class BatchId(NamedTuple):
    """A batch of the endless stream: epochs count from 1, batches of an epoch from 0. Ordered as the stream is."""

    epoch: int
    number: int


@dataclass(frozen=True)
class BatchRoom:
    """What has room in memory at once: pairs are padded to the longest source s and the longest target t of a batch.

    Attributes:
        most: bytes that a batch may take.
        of_pair: bytes of a pair in it for each of 1, s, t, s², s t and t².
    """

    most: int
    of_pair: tuple[int, int, int, int, int, int]

    def bytes(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(n,) int64, of a pair in batches of the longest sources and targets (n,)."""
        s, t = source.astype(np.int64), target.astype(np.int64)
        terms = np.stack([np.ones_like(s), s, t, s * s, s * t, t * t])
        result: np.ndarray = np.maximum(np.array(self.of_pair, np.int64) @ terms, 1)
        return result

    def pairs(self, source: np.ndarray, target: np.ndarray) -> int:
        """How many of the first pairs, of these lengths (n,), have room together; one at least."""
        # No more than if all were like the first ones, of which the longest so far can only grow.
        first = self.most // int(self.bytes(source[:1], target[:1])[0])
        source, target = (np.maximum.accumulate(lengths[: max(first, 1)]) for lengths in (source, target))
        taken = np.arange(1, len(source) + 1) * self.bytes(source, target)
        return max(int(np.searchsorted(taken, self.most, side="right")), 1)


class EpochPlan:
    """The batches of one epoch: `epoch[i]` holds the sentence indexes of batch ``i``.

    Args:
        order: (sentences,) their indexes, batch by batch.
        bounds: (parts + 1,) where the parts of batches begin in ``order``.
        parts: of one batch; the last batch may have fewer.
    """

    def __init__(self, order: np.ndarray, bounds: np.ndarray, parts: int = 1) -> None:
        self.order = order
        self.bounds = bounds
        self._parts = parts

    def __len__(self) -> int:
        return -(-(len(self.bounds) - 1) // self._parts)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.concatenate(self.parts(index))

    def parts(self, index: int) -> tuple[np.ndarray, ...]:
        """The parts of batch ``index``, each computed by itself."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        bounds = self.bounds[index * self._parts : (index + 1) * self._parts + 1]
        return tuple(self.order[begin:end] for begin, end in itertools.pairwise(bounds))


class BatchPlan:
    """The endless stream of batches over a corpus.

    Args:
        source_lengths: (sentences,) source tokens with end marks.
        target_lengths: (sentences,) target tokens with end marks.
        budget: target tokens that a part of a batch holds at most, or its room; what exceeds it makes a part of its
            own.
        seed: of all shuffling.
        indexes: (sentences,) the sentences' indexes in the store, where they are not 0, 1, 2 …
        window: sentences sorted by length together.
        parts: pieces of ``budget`` that a batch is made of, drawn independently.
        mixture: of the corpora whose sentences these are, one behind the other; None: each sentence once an epoch.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        budget: int | BatchRoom,
        seed: int,
        indexes: np.ndarray | None = None,
        window: int = WINDOW,
        parts: int = 1,
        mixture: Mixture | None = None,
    ) -> None:
        if len(source_lengths) != len(target_lengths):
            raise ValueError(f"{len(source_lengths)} sources for {len(target_lengths)} targets")
        if not len(source_lengths):
            raise ValueError("a plan needs at least one sentence")
        if mixture is not None and sum(mixture.sizes) != len(source_lengths):
            raise ValueError(f"a mixture of {sum(mixture.sizes)} sentences for {len(source_lengths)}")
        self.source_lengths = source_lengths
        self.target_lengths = target_lengths
        self.budget = budget
        self.seed = seed
        self.indexes = indexes
        self.window = window
        self.mixture = mixture
        self._parts = parts
        self._latest: dict[int, EpochPlan] = {}

    def epoch(self, epoch: int) -> EpochPlan:
        """The batches of ``epoch`` (from 1); the two latest asked for are kept."""
        plan = self._latest.get(epoch)
        if plan is None:
            plan = self._compute(epoch)
            while len(self._latest) >= 2:
                del self._latest[next(iter(self._latest))]
            self._latest[epoch] = plan
        return plan

    def sentences(self, batch: BatchId) -> np.ndarray:
        """The sentence indexes of ``batch``."""
        return self.epoch(batch.epoch)[batch.number]

    def parts(self, batch: BatchId) -> tuple[np.ndarray, ...]:
        """The same, part by part."""
        return self.epoch(batch.epoch).parts(batch.number)

    @property
    def epoch_tokens(self) -> int:
        """Target tokens of an epoch; of one that mixes corpora by weights, the mean of all epochs."""
        lengths = np.asarray(self.target_lengths)
        if self.mixture is None:
            return int(lengths.sum(dtype=np.int64))
        borders = np.cumsum(self.mixture.sizes)[:-1]
        return round(self.mixture.mean([int(part.sum(dtype=np.int64)) for part in np.split(lengths, borders)]))

    def position(self, batch: BatchId) -> float:
        """Epochs gone by when ``batch`` ends, as a fraction: 1.5 is the middle of the second epoch."""
        return batch.epoch - 1 + (batch.number + 1) / len(self.epoch(batch.epoch))

    def following(self, batch: BatchId) -> BatchId:
        """The batch that comes after ``batch`` in the stream."""
        at_end = batch.number + 1 >= len(self.epoch(batch.epoch))
        return BatchId(batch.epoch + 1, 0) if at_end else BatchId(batch.epoch, batch.number + 1)

    def _compute(self, epoch: int) -> EpochPlan:
        generator = np.random.default_rng((self.seed, epoch))
        if self.mixture is None:
            shuffled = np.arange(len(self.source_lengths), dtype=np.uint32)
            generator.shuffle(shuffled)  # as `permutation` of the number, in half the memory
        else:  # rising rows, so that those of an epoch that holds each once make the very same batches
            shuffled = self.mixture.rows(epoch, self.seed)
            generator.shuffle(shuffled)
        order, sizes = [], []
        for begin in range(0, len(shuffled), self.window):
            window_order, window_sizes = self._window(shuffled[begin : begin + self.window], generator)
            order.append(window_order)
            sizes.append(window_sizes)
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        whole = np.concatenate(order)
        return EpochPlan(whole if self.indexes is None else self.indexes[whole], bounds, self._parts)

    def _window(self, sentences: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The window's sentences in the order of its shuffled batches, and the sentences of each batch."""
        target = np.asarray(self.target_lengths)[sentences].astype(np.int64)
        source = np.asarray(self.source_lengths)[sentences].astype(np.int64)
        # Within one target length, sources rise and fall in turn, so that neighbours across lengths are alike too.
        by_length = _sorted_by(target, np.where(target % 2, source, -source))
        sentences = sentences[by_length]
        cuts = self._cuts(source[by_length], target[by_length])
        batches = generator.permutation(len(cuts) - 1)
        starts, sizes = np.array(cuts[:-1]), np.diff(cuts)
        rows = np.concatenate([np.arange(starts[batch], starts[batch] + sizes[batch]) for batch in batches])
        return sentences[rows], sizes[batches]

    def _cuts(self, source: np.ndarray, target: np.ndarray) -> list[int]:
        """Where parts of batches begin and end, of sentences of these lengths (sentences,)."""
        cuts, ends = [0], np.cumsum(target)
        while cuts[-1] < len(target):
            begin = cuts[-1]
            if isinstance(self.budget, BatchRoom):
                cuts.append(begin + self.budget.pairs(source[begin:], target[begin:]))
                continue
            before = ends[begin - 1] if begin else 0
            cut = int(np.searchsorted(ends, before + self.budget, side="right"))
            cuts.append(max(cut, begin + 1))
        return cuts


def _sorted_by(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(sentences,) the order by ``first``, and by ``second`` where it is alike: ``np.lexsort((second, first))``.

    Numpy sorts numbers of 16 bits by their digits, in a fifth of the time; lengths nearly always are such.
    """
    ordered: np.ndarray | None = None
    for key in (second, first):
        if key.size and (key.min() < -(1 << 15) or key.max() >= 1 << 15):
            return np.lexsort((second, first))
        small = key.astype(np.int16)
        rows = np.argsort(small if ordered is None else small[ordered], kind="stable")
        ordered = rows if ordered is None else ordered[rows]
    assert ordered is not None
    return ordered
