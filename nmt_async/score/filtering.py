"""Filtering of parallel text by dual conditional cross-entropy (Junczys-Dowmunt 2018, arXiv:1809.00197).

With H_f the forward model's cross-entropy per subword of the target given the source and H_b the backward model's of
the source given the target, a pair's score is exp(-(|H_f - H_b| + (H_f + H_b) / 2)): 1 where
both models are certain, small where either finds the pair improbable or they disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt_async.score.scorer import LineScorer, Pair
from nmt_async.translate.lines import windows


@dataclass(frozen=True)
class DualScore:
    """What two models think of a pair.

    Attributes:
        forward, backward: cross-entropies per subword, in nats; 0 where a side has no words.
        score: from 0 to 1; of a pair of which a side has no words, 0.
    """

    forward: float
    backward: float
    score: float


UNPAIRED = DualScore(0.0, 0.0, 0.0)


def dual_score(forward: float, backward: float) -> float:
    """The score (from 0 to 1) of cross-entropies per subword, in nats."""
    return math.exp(-(abs(forward - backward) + (forward + backward) / 2))


def dual_scores(
    pairs: Iterable[Pair], forward: LineScorer, backward: LineScorer, at_hand: bool = False
) -> Iterator[DualScore]:
    """The score of each pair, in their order.

    Args:
        forward: a model from source to target. backward: from target to source.
        at_hand: no pair has to be waited for.
    """
    options, first = forward.options, 1
    for window in windows(pairs, options.mini_batch * options.maxi_batch, at_hand):
        there = forward.score_window(window, first)
        back = backward.score_window([(target, source) for source, target in window], first)
        first += len(window)
        for one, other in zip(there, back, strict=True):
            if not one.tokens or not other.tokens:
                yield UNPAIRED
                continue
            entropies = one.cross_entropy, other.cross_entropy
            yield DualScore(*entropies, dual_score(*entropies))


def chosen(
    scores: NDArray[np.float64], share: float | None = None, threshold: float | None = None
) -> NDArray[np.bool_]:  # fmt: skip
    """Which pairs (pairs,) have at least the score ``threshold``, or without one are the best ``share`` of all."""
    return best_share(scores, share or 1.0) if threshold is None else scores >= threshold


def best_share(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Which pairs (pairs,) are the best ``share`` of all, rounded; of equal ones the earlier, none of score 0."""
    kept = np.zeros(len(scores), dtype=np.bool_)
    kept[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return kept & (scores > 0)
