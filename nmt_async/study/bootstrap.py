"""Bootstrap intervals over seeds and validation sentences together, for sums of means of conditions.

Each replicate takes one draw of the validation sentences, the same for all conditions, and draws seeds with
replacement within each condition. Of n seeds it draws n - 1: the variance of their mean is then without bias that of
the mean of n seeds (McCarthy & Snowden 1985); drawing n would understate it by a half with two, by a third with three.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 2000
SHARE = 0.95
SEED = 19065608


@dataclass(frozen=True)
class Sample:
    """One quantity of the runs of one condition. Infinite values are allowed and stand for the worst.

    Attributes:
        condition: samples of the same name share their choice of seeds.
        values: (seeds,).
        draws: (seeds, draws), the same on each draw of the sentences; no columns if there are none.
    """

    condition: str
    values: np.ndarray
    draws: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval.

    Attributes:
        value: from all seeds and all sentences; nan if it is the difference of two infinite ones.
        low, high: of the interval; infinite on both sides where neither seeds nor sentences can be drawn.
        over: what was drawn: ``seeds and sentences``, ``sentences only``, ``seeds only``, ``nothing``.
    """

    value: float
    low: float
    high: float
    over: str


def contrast(terms: Sequence[tuple[float, Sample]]) -> Interval:
    """The sum of weighted means over seeds, with its interval; the same samples give the same interval.

    Sentences are drawn where all samples kept their draws, seeds where all conditions have two or more.
    """
    widths = {sample.draws.shape[1] for _, sample in terms}
    draws = widths.pop() if len(widths) == 1 else 0
    several = all(len(sample.values) > 1 for _, sample in terms)
    value = float(_sum([weight * sample.values.mean() for weight, sample in terms]))
    over = {(True, True): "seeds and sentences", (False, True): "sentences only", (True, False): "seeds only"}.get(
        (several, draws > 1), "nothing"
    )
    if over == "nothing":
        return Interval(value, -np.inf, np.inf, over)
    draw = np.arange(REPLICATES) % max(draws, 1)
    parts = []
    for weight, sample in terms:
        table = sample.draws if draws else sample.values[:, None]
        chosen = _seeds(sample) if several else np.arange(len(table))[None]
        parts.append(weight * table[chosen, draw[:, None]].mean(axis=1))
    replicates = _sum(parts)
    cut = int(REPLICATES * (1 - SHARE) / 2)
    # Where a replicate is the difference of two infinite values it may be anything.
    low = np.sort(np.where(np.isnan(replicates), -np.inf, replicates))[cut]
    high = np.sort(np.where(np.isnan(replicates), np.inf, replicates))[-1 - cut]
    return Interval(value, float(low), float(high), over)


def _seeds(sample: Sample) -> np.ndarray:
    """Which seeds each replicate takes: (replicates, seeds - 1).

    The generator is the condition's own, so that other conditions do not change its draws.
    """
    generator = np.random.default_rng([SEED, zlib.crc32(sample.condition.encode())])
    count = len(sample.values)
    return generator.integers(count, size=(REPLICATES, count - 1))


def _sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        total: np.ndarray = np.sum(np.stack(parts), axis=0)
    return total
