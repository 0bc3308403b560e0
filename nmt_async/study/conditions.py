"""Conditions: runs that differ in their seed alone, their learning curves, and which of them can be compared.

A curve is quality over tokens, updates or seconds of one run. It says when that first reached a given quality. Between
two validations the quality is taken as linear in the logarithm of the abscissa. On curves of a prototype, read with
every second validation left out, this put crossings 0.5 % too late on average. A straight line put them 3.4 % too late,
since learning curves bend upward. Scaling the abscissa scales the crossing by the same factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from nmt_async.errors import UserError
from nmt_async.study.result import Result

Axis = Literal["tokens", "updates", "seconds"]
Metric = Literal["cross-entropy", "bleu"]


@dataclass(frozen=True)
class Curve:
    """Badness over the abscissa: lower is better, so BLEU is kept with its sign turned. Infinite is the worst.

    Attributes:
        at: (points,), rising.
        values: (points,), infinite where not finite.
        draws: (points, draws), the same on each bootstrap draw of the validation sentences; no columns where the run
            kept none, and for BLEU.
        diverged: the run ended so. It has reached no quality then, whatever it had before.
    """

    at: np.ndarray
    values: np.ndarray
    draws: np.ndarray
    diverged: bool

    @classmethod
    def of(cls, result: Result, axis: Axis = "tokens", metric: Metric = "cross-entropy") -> Self:
        """The curve of a run; of those of its validations that have the metric."""
        points = [point for point in result.points if metric == "cross-entropy" or point.bleu is not None]
        if metric == "bleu":
            values = np.array([-(point.bleu or 0.0) for point in points], dtype=np.float64)
            draws = np.empty((len(points), 0))
        else:
            values = np.array([point.cross_entropy for point in points], dtype=np.float64)
            counts = {len(point.resampled) for point in points}
            width = counts.pop() if len(counts) == 1 else 0
            draws = np.array([point.resampled[:width] for point in points], dtype=np.float64).reshape(
                len(points), width
            )
        abscissa = {"tokens": "tokens", "updates": "update", "seconds": "seconds"}[axis]
        return cls(
            at=np.array([getattr(point, abscissa) for point in points], dtype=np.float64),
            values=_worst_where_broken(values),
            draws=_worst_where_broken(draws),
            diverged=is_diverged(result),
        )

    @property
    def best(self) -> float:
        """The best value anywhere; infinite if the run diverged."""
        return float(self.values.min(initial=np.inf)) if not self.diverged else np.inf

    def best_on_draws(self) -> np.ndarray:
        """`best` on each draw: (draws,)."""
        found: np.ndarray = self.draws.min(axis=0, initial=np.inf)
        return found if not self.diverged else np.full_like(found, np.inf)

    def value_at(self, abscissa: float) -> float:
        """The value there; the first or last one outside the validations; infinite if the run diverged."""
        return float(self._interpolated(self.values[:, None], abscissa)[0])

    def draws_at(self, abscissa: float) -> np.ndarray:
        """`value_at` on each draw: (draws,)."""
        return self._interpolated(self.draws, abscissa)

    def reach(self, target: float) -> float:
        """Where the curve first is at the target or better; infinite: not reached.

        A target that the first validation has already passed counts as reached there.
        """
        return float(self._crossing(self.values[:, None], np.array([target]))[0])

    def reach_on_draws(self, targets: np.ndarray | float) -> np.ndarray:
        """`reach` on each draw, of its own target or one for all: (draws,)."""
        return self._crossing(self.draws, np.broadcast_to(targets, self.draws.shape[1:]))

    def _interpolated(self, table: np.ndarray, abscissa: float) -> np.ndarray:
        if self.diverged or not len(self.at):
            return np.full(table.shape[1], np.inf)
        right = int(np.searchsorted(self.at, abscissa))
        if right == 0 or right == len(self.at):
            edge: np.ndarray = table[min(right, len(self.at) - 1)]
            return edge
        share = _share(self.at[right - 1], self.at[right], abscissa)
        # The worst stays the worst, also times a share of zero.
        before, after = table[right - 1], table[right]
        with np.errstate(invalid="ignore"):
            between: np.ndarray = np.where(
                np.isinf(before) | np.isinf(after), np.inf, before + share * (after - before)
            )
        return between

    def _crossing(self, table: np.ndarray, targets: np.ndarray) -> np.ndarray:
        draws = np.arange(table.shape[1])
        if self.diverged or not len(self.at):
            return np.full(len(draws), np.inf)
        there = table <= targets
        right = there.argmax(axis=0)
        left = np.maximum(right - 1, 0)
        before, after = table[left, draws], table[right, draws]
        start, end = self.at[left], self.at[right]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(np.isinf(before), 1.0, (before - targets) / (before - after))
            crossing = np.where(start > 0, start * (end / start) ** share, start + share * (end - start))
        reached: np.ndarray = np.where(there.any(axis=0), np.where(right == 0, end, crossing), np.inf)
        return reached


def is_diverged(result: Result) -> bool:
    """Whether the run could not go on, or ended with a cross-entropy that is not finite."""
    return bool(result.diverged) or (result.last is not None and not np.isfinite(result.last.cross_entropy))


def _worst_where_broken(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.inf)


def _share(start: float, end: float, abscissa: float) -> float:
    if start <= 0:  # no logarithm: a validation before training
        return float((abscissa - start) / (end - start))
    return float(np.log(abscissa / start) / np.log(end / start))


@dataclass(frozen=True)
class Condition:
    """The runs that differ in nothing but their seed.

    Attributes:
        name: of the condition.
        results: by seed.
        against: the name of the one that it is set beside, empty for none.
    """

    name: str
    results: tuple[Result, ...]
    against: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(result.setting.seed for result in self.results)

    @property
    def diverged(self) -> int:
        """How many of its runs did."""
        return sum(is_diverged(result) for result in self.results)


Conditions = Mapping[str, Condition]
"""By name."""


def by_condition(results: Iterable[Result], against: Mapping[str, str] | None = None) -> dict[str, Condition]:
    """The results by condition, in the order in which the conditions first come.

    Args:
        against: of each condition that is set beside another, that one.

    Raises:
        UserError: results on different data, or two of one condition and seed.
    """
    grouped: dict[str, dict[int, Result]] = {}
    data = None
    for result in results:
        data = data or result
        if result.data != data.data:
            raise UserError(
                f"The results of {data.setting.name} and {result.setting.name} are of different data and cannot be "
                f"compared; keep the results of each data in a folder of their own."
            )
        seeds = grouped.setdefault(result.setting.condition, {})
        if result.setting.seed in seeds:
            raise UserError(f"There are two results of {result.setting.name}; keep one.")
        seeds[result.setting.seed] = result
    return {
        name: Condition(name, tuple(seeds[seed] for seed in sorted(seeds)), (against or {}).get(name, ""))
        for name, seeds in grouped.items()
    }


def beside(shown: Iterable[Condition], conditions: Conditions) -> Iterator[tuple[Condition, Condition]]:
    """Each condition that is set beside another of which there are runs, with that one."""
    for condition in shown:
        if condition.against in conditions:
            yield condition, conditions[condition.against]


def shared_words(names: Sequence[str]) -> str:
    """The words that all the names have, in the order of the first."""
    return " ".join(word for word in names[0].split() if all(word in name.split() for name in names))


def own_words(name: str, names: Sequence[str]) -> str:
    """The words of a name that not all the names have."""
    shared = shared_words(names).split()
    return " ".join(word for word in name.split() if word not in shared)


def check_clocks(quantity: str, conditions: Sequence[Condition]) -> None:
    """Nothing, if seconds of the conditions can be compared.

    Raises:
        UserError: they are of different clusters or profiles.
    """
    clocks = {
        (result.cluster, result.profile): condition.name for condition in conditions for result in condition.results
    }
    if len(clocks) > 1:
        (one, name), (other, other_name) = list(clocks.items())[:2]
        raise UserError(
            f"{quantity} of {name} ({' '.join(one).strip()}) and of {other_name} ({' '.join(other).strip()}) are by "
            f"different clocks; compare runs in one kind of cluster and under one profile."
        )


def curves_of(condition: Condition, axis: Axis = "tokens", metric: Metric = "cross-entropy") -> list[Curve]:
    """The curves of a condition's runs, by seed.

    Raises:
        UserError: a run that did not diverge has no validation of the metric.
    """
    curves = [Curve.of(result, axis, metric) for result in condition.results]
    for curve, result in zip(curves, condition.results, strict=True):
        if not len(curve.at) and not curve.diverged:
            raise UserError(
                f"{result.setting.name} has no validation with {'BLEU' if metric == 'bleu' else 'a cross-entropy'}; "
                f"run it with a smaller --valid-freq."
            )
    return curves


def common_target(conditions: Sequence[Condition]) -> float:
    """The best cross-entropy that all runs reach, leaving out those that diverged; infinite if all did."""
    curves = [curve for condition in conditions for curve in curves_of(condition)]
    return max((curve.best for curve in curves if not curve.diverged), default=np.inf)


def targets_of(conditions: Sequence[Condition], count: int = 5) -> list[float]:
    """Round cross-entropies for a table, the hardest first: from what one condition reaches with all its seeds.

    The steps between them grow, as learning curves flatten.
    """
    best = min((common_target([condition]) for condition in conditions if not condition.diverged), default=np.inf)
    if not np.isfinite(best):
        return []
    first = np.ceil(best * 20 - 1e-9) / 20
    return [float(round(first + 0.05 * (2**step - 1), 2)) for step in range(count)]
