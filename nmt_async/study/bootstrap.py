"""Bootstrap intervals over seeds and validation sentences together, for sums of means of conditions.

Each replicate takes one draw of the validation sentences, the same for all conditions, and draws seeds with
replacement within each condition. Of n seeds it draws n - 1: the variance of their mean is then without bias that of
the mean of n seeds (McCarthy & Snowden 1985); drawing n would understate it by a half with two, by a third with three.
The few seeds' distance from their mean is then stretched as Student's t is against a normal variable, for as many
degrees of freedom as there are seeds beyond one in each condition. In a simulation of two conditions of normal seeds
without sentence noise, where the method has it hardest, this makes the share of 95 % intervals that hold the truth 88 %
with two seeds, 93 % with three and 94 % with five; unstretched it is 66, 87 and 92 %.

Draws of the sentences are the same in every run on the same data, so that runs can be paired. A draw takes as many
sentences as there are, with replacement (Efron 1979; Koehn 2004 for translation). Keeping each validation's
cross-entropy on fixed draws instead of every sentence's loss makes a result small, and any difference or crossing time
between two runs gets its interval from the draws one by one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 2000
SHARE = 0.95
REPLICATES_SEED = 19065608

# Student's t at 97.5 %, by degrees of freedom from 1.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


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
    replicates = _sum(
        [weight * _replicates(sample, draws, _stretch(terms) if several else 0.0) for weight, sample in terms]
    )
    cut = int(REPLICATES * (1 - SHARE) / 2)
    # Where a replicate is the difference of two infinite values it may be anything.
    low = np.sort(np.where(np.isnan(replicates), -np.inf, replicates))[cut]
    high = np.sort(np.where(np.isnan(replicates), np.inf, replicates))[-1 - cut]
    return Interval(value, float(low), float(high), over)


def _replicates(sample: Sample, draws: int, stretch: float) -> np.ndarray:
    """The sample's mean in each replicate, (replicates,); with a stretch of 0 of all its seeds."""
    draw = np.arange(REPLICATES) % max(draws, 1)
    table = sample.draws if draws else sample.values[:, None]
    middle: np.ndarray = table.mean(axis=0)[draw]
    if not stretch:
        return middle
    count = len(table)
    # The generator is the condition's own, so that other conditions do not change its draws.
    generator = np.random.default_rng([REPLICATES_SEED, zlib.crc32(sample.condition.encode())])
    chosen = generator.integers(count, size=(REPLICATES, count - 1))
    drawn: np.ndarray = table[chosen, draw[:, None]].mean(axis=1)
    with np.errstate(invalid="ignore"):  # a distance from the worst is none
        return np.where(np.isfinite(middle), middle + stretch * (drawn - middle), drawn)


def _stretch(terms: Sequence[tuple[float, Sample]]) -> float:
    freedom = sum(count - 1 for count in {sample.condition: len(sample.values) for _, sample in terms}.values())
    return (_STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL) / _NORMAL


def _sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        total: np.ndarray = np.sum(np.stack(parts), axis=0)
    return total


DRAWS = 200
DRAWS_SEED = 20190603
AT_ONCE = 1 << 20
"""Weights in memory; how many draws are made together changes none of them."""


def draw_weights(sentences: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each sentence is in each draw, some draws at a time: (draws of them, sentences), float64."""
    generator = np.random.default_rng([DRAWS_SEED, sentences])
    at_once = max(1, AT_ONCE // max(1, sentences))
    for begin in range(0, draws, at_once):
        size = min(at_once, draws - begin)
        yield generator.multinomial(sentences, np.full(sentences, 1.0 / sentences), size=size).astype(np.float64)


def resampled_cross_entropy(losses: np.ndarray, tokens: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The cross-entropy per target token on each draw, (draws,).

    Args:
        losses: (sentences,), each summed over its target tokens, in nats.
        tokens: (sentences,), target tokens of each.
    """
    parts = []
    for weights in draw_weights(len(losses), draws):
        with np.errstate(invalid="ignore", over="ignore"):  # a loss that is not finite makes the draws it is in so
            parts.append((weights @ losses) / (weights @ tokens))
    return np.concatenate(parts)
