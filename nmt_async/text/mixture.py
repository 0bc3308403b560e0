"""How an epoch is mixed of several corpora: their weights, and which sentence pairs of each are its turn.

Weights are shares of the sentence pairs of an epoch. An epoch has as many pairs as the corpora have together, so of
weights that are proportional to the sizes comes an epoch in which each pair stands once. A corpus of weight 0 is left
out. Of N pairs an epoch, corpus i with the share p_i has the quota q_i = N * p_i, and after e epochs exactly
floor(e * q_i) of its pairs have had their turn: the fraction that an epoch cannot give is carried on to the next.

The pairs of a corpus come in an endless row of passes over it, each in an order of its own, and an epoch takes on where
the one before stopped. So no pair comes a second time before each pair of its corpus has come once, in whatever
proportion corpora are mixed.

A temperature T makes weights of sizes: w_i = n_i^(1/T) (Arivazhagan et al. 2019, arXiv:1907.05019). With 1 they are the
sizes, and the higher it is, the more alike they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError, shown

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6
"""Of those that are not 0; what lies beyond is a slip of the hand."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 1e6
_STEPS = 10**9  # in which a power is rounded, so that it does not hang on the last bit of a machine's

NAME = re.compile(r"[\w.-]{1,60}")
"""What a corpus may be called: it is a key, a column, and a word on the command line."""


def checked_weight(value: float) -> float:
    """The weight of a corpus.

    Raises:
        UserError: it is negative, or no number that can be one.
    """
    if value != 0 and not SMALLEST_WEIGHT <= value <= LARGEST_WEIGHT:
        raise UserError(f"{value:g} is no weight; give 0, or a number from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}.")
    return value


def checked_temperature(value: float) -> float:
    """The temperature of all corpora.

    Raises:
        UserError: it is not above 0, or no number that can be one.
    """
    if not LOWEST_TEMPERATURE <= value <= HIGHEST_TEMPERATURE:
        raise UserError(
            f"{value:g} is no temperature; give a number from {LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}."
        )
    return value


@dataclass(frozen=True)
class CorpusWeights:
    """A weight for each corpus, by its name, as one types them: ``general=1,news=2.5``."""

    values: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, text: str) -> CorpusWeights:
        """Names with their weights, with commas or spaces between them.

        Raises:
            UserError: they are not in this form, a name stands twice, a weight cannot be, or all are 0.
        """
        found: dict[str, float] = {}
        for part in filter(None, re.split(r"[\s,]+", text.strip())):
            name, _, written = part.partition("=")
            try:
                weight = float(written)
                if not NAME.fullmatch(name):
                    raise ValueError
            except ValueError:
                raise UserError(f"{shown(part)} is not NAME=WEIGHT, such as news=2.") from None
            if name in found:
                raise UserError(f"{name} is given twice; leave one out.")
            found[name] = checked_weight(weight)
        if not any(found.values()):
            raise UserError(f"{shown(text)} sums to nothing; give at least one corpus a weight above 0.")
        return cls(tuple(found.items()))

    def __str__(self) -> str:
        return ",".join(f"{name}={weight!r}" for name, weight in self.values)

    def of(self, names: Sequence[str]) -> list[float]:
        """The weight of each of these corpora.

        Raises:
            UserError: one of them has none, or there is a weight of another.
        """
        given = dict(self.values)
        for name in names:
            if name not in given:
                raise UserError(f"{name} has no weight; give each of {', '.join(names)} one, or 0 to leave it out.")
        for name in given:
            if name not in names:
                raise UserError(f"there is no corpus {name}; there are {', '.join(names)}.")
        return [given[name] for name in names]


def weights_at(temperature: float, sizes: Sequence[int]) -> list[Fraction]:
    """The weight of each corpus by its size, in sentence pairs; of one that has a pair, never 0."""
    if temperature == 1:
        return [Fraction(size) for size in sizes]
    largest = max(sizes)
    powers = [round(_STEPS * (size / largest) ** (1 / temperature)) for size in sizes]
    return [Fraction(max(1, power)) if size else Fraction(0) for power, size in zip(powers, sizes, strict=True)]


@dataclass(frozen=True)
class Mixture:
    """What an epoch takes of each corpus. Corpora stand one behind the other, in rows from 0.

    Attributes:
        sizes: sentence pairs that each corpus has.
        quotas: of each, how many pairs an epoch takes on average.
    """

    sizes: tuple[int, ...]
    quotas: tuple[Fraction, ...]

    @classmethod
    def of(cls, sizes: Sequence[int], weights: Sequence[float | Fraction]) -> Mixture:
        """The mixture by weights; a decimal number is taken as it is written, so that a tenth is a tenth.

        Raises:
            ValueError: all weights are 0, one is negative, or a corpus with a weight has no pair.
        """
        exact = [weight if isinstance(weight, Fraction) else Fraction(repr(float(weight))) for weight in weights]
        total = sum(exact, Fraction(0))
        if total <= 0 or min(exact) < 0 or any(weight and not size for weight, size in zip(exact, sizes, strict=True)):
            raise ValueError(f"no epoch can be mixed of {list(sizes)} pairs by the weights {list(weights)}")
        pairs = sum(size for size, weight in zip(sizes, exact, strict=True) if weight)
        return cls(tuple(sizes), tuple(pairs * weight / total for weight in exact))

    def drawn(self, epochs: int) -> tuple[int, ...]:
        """Pairs of each corpus that have had their turn when so many epochs are over."""
        return tuple(math.floor(epochs * quota) for quota in self.quotas)

    def mean(self, sums: Sequence[int]) -> float:
        """What an epoch has on average of something of which the pairs of each corpus have ``sums`` together."""
        parts = zip(self.quotas, self.sizes, sums, strict=True)
        return float(sum(quota * total / size for quota, size, total in parts if size))

    def rows(self, epoch: int, seed: int) -> NDArray[np.uint32]:
        """The rows whose turn is in ``epoch`` (from 1), rising; a row stands there as often as it comes."""
        before, after = self.drawn(epoch - 1), self.drawn(epoch)
        begins = np.concatenate([[0], np.cumsum(self.sizes)])
        parts = [
            int(begins[corpus]) + _taken(size, before[corpus], after[corpus], (seed, corpus + 1))
            for corpus, size in enumerate(self.sizes)
        ]
        return np.sort(np.concatenate(parts)).astype(np.uint32)


def _taken(size: int, begin: int, end: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """Places ``begin`` to ``end`` in an endless row of passes over ``size`` pairs."""
    if begin == end:
        return np.empty(0, np.int64)
    passes = range(begin // size, (end - 1) // size + 1)
    # Numbered from 1: numpy takes a seed that ends in 0 for the one without it.
    row = np.concatenate([np.random.default_rng((*seed, number + 1)).permutation(size) for number in passes])
    offset = passes.start * size
    return row[begin - offset : end - offset]
