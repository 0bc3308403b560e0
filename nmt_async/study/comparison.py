"""Conditions compared: differences at equal tokens, and what a quality costs as a ratio, each with its interval.

A comparison is a sum of means over seeds with signs (`nmt_async.study.bootstrap`), of logarithms where it is a ratio;
so a difference of differences, or a ratio of ratios, is a longer sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nmt_async.errors import UserError
from nmt_async.study.bootstrap import Interval, Sample, contrast
from nmt_async.study.curves import Axis, Curve, Metric, is_diverged
from nmt_async.study.result import Result

FINAL: dict[str, Metric] = {"final cross-entropy": "cross-entropy", "final BLEU": "bleu"}
"""Compared as differences at equal tokens."""

TO_QUALITY: dict[str, Axis] = {
    "tokens to quality": "tokens", "updates to quality": "updates", "seconds to quality": "seconds",
}  # fmt: skip
"""Compared as ratios."""

OF_RUN: dict[str, Callable[[Result], float]] = {
    "staleness": lambda result: result.staleness_mean,
    "waiting share": lambda result: float(np.mean(result.waiting)) if result.waiting else 0.0,
}
"""Compared as differences."""

RATES: dict[str, Callable[[Result], float]] = {
    "tokens per second": lambda result: result.tokens_per_second,
    "effective batch": lambda result: result.effective_batch,
    "processor seconds per token": lambda result: result.processor_seconds / max(1, result.tokens),
}
"""Compared as ratios."""

QUANTITIES = (*FINAL, *TO_QUALITY, *OF_RUN, *RATES)
CLOCKED = ("seconds to quality", "tokens per second", "waiting share")
"""Quantities by the cluster's clock: only runs under one profile can be compared in them."""


@dataclass(frozen=True)
class Condition:
    """The runs that differ in nothing but their seed.

    Attributes:
        name: of the condition.
        results: by seed.
    """

    name: str
    results: tuple[Result, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(result.setting.seed for result in self.results)

    @property
    def diverged(self) -> int:
        """How many of its runs did."""
        return sum(is_diverged(result) for result in self.results)


def by_condition(results: Iterable[Result]) -> dict[str, Condition]:
    """The results by condition, in the order in which the conditions first come.

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
    return {name: Condition(name, tuple(seeds[seed] for seed in sorted(seeds))) for name, seeds in grouped.items()}


@dataclass(frozen=True)
class Difference:
    """A mean over seeds, or how far it is above another's.

    Attributes:
        value, low, high: in the quantity's unit, with the ends of the 95 % interval; infinite where runs diverged.
        over: what the interval covers: ``seeds and sentences``, ``sentences only``, ``seeds only``, ``nothing``.
        seeds: of each condition, how many.
        tokens: at which the runs were compared; None where the quantity is of whole runs.
    """

    value: float
    low: float
    high: float
    over: str
    seeds: Mapping[str, int]
    tokens: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A geometric mean over seeds, or how many times another's it is.

    Attributes:
        value, low, high: with the ends of the 95 % interval; infinite where the target is not reached.
        over, seeds: as in `Difference`.
        target: the quality, where there is one.
        reached: of each condition, how many of its seeds reached the target.
    """

    value: float
    low: float
    high: float
    over: str
    seeds: Mapping[str, int]
    target: float | None = None
    reached: Mapping[str, int] | None = None


def compare(
    quantity: str,
    compared: Condition,
    against: Condition | None = None,
    *,
    beside: tuple[Condition, Condition] | None = None,
    target: float | None = None,
) -> Difference | Ratio:
    """The quantity of ``compared``, less (or over) that of ``against``, less (or over) the same of ``beside``.

    Args:
        quantity: one of `QUANTITIES`.
        beside: another condition and what it is against, for a difference of differences.
        target: a cross-entropy, for what a quality costs. By default the best that both conditions of a pair reach
            with all their seeds, and on a draw of sentences the best that they reach on it.

    Raises:
        UserError: a run without validations (or without BLEU), or runs by different clocks.
    """
    pairs = [(1.0, compared, against), *([(-1.0, *beside)] if beside else [])]
    conditions = [condition for _, *pair in pairs for condition in pair if condition]
    seeds = {condition.name: len(condition.results) for condition in conditions}
    if quantity in CLOCKED:
        for _, *pair in pairs:
            _check_clocks(quantity, [condition for condition in pair if condition])
    if quantity in FINAL:
        metric = FINAL[quantity]
        curves = {condition.name: curves_of(condition, "tokens", metric) for condition in conditions}
        everything = [curve for several in curves.values() for curve in several]
        tokens, width = _common_end(everything), _common_width(everything)
        sign = -1.0 if metric == "bleu" else 1.0
        samples = {name: _final(name, several, width, tokens, sign) for name, several in curves.items()}
        interval = contrast(_signed(pairs, samples))
        return Difference(interval.value, interval.low, interval.high, interval.over, seeds, tokens)
    if quantity in TO_QUALITY:
        return _to_quality(TO_QUALITY[quantity], pairs, seeds, target)
    measure = OF_RUN.get(quantity) or RATES[quantity]
    samples = {condition.name: _of_runs(condition, measure, quantity in RATES) for condition in conditions}
    interval = contrast(_signed(pairs, samples))
    if quantity in OF_RUN:
        return Difference(interval.value, interval.low, interval.high, interval.over, seeds)
    return Ratio(*_exponential(interval), interval.over, seeds)


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


Pairs = Sequence[tuple[float, Condition, Condition | None]]


def _signed(pairs: Pairs, samples: Mapping[str, Sample]) -> list[tuple[float, Sample]]:
    terms = []
    for weight, compared, against in pairs:
        terms.append((weight, samples[compared.name]))
        if against is not None:
            terms.append((-weight, samples[against.name]))
    return terms


def _to_quality(axis: Axis, pairs: Pairs, seeds: Mapping[str, int], target: float | None) -> Ratio:
    terms: list[tuple[float, Sample]] = []
    reached: dict[str, int] = {}
    targets = []
    for weight, compared, against in pairs:
        curves = {condition.name: curves_of(condition, axis) for condition in (compared, against) if condition}
        everything = [curve for several in curves.values() for curve in several]
        learned = [curve for curve in everything if not curve.diverged]
        width = _common_width(everything)
        wanted = target if target is not None else max((curve.best for curve in learned), default=np.inf)
        targets.append(wanted)
        on_draws = np.full(width, wanted)
        if target is None and width:
            on_draws = np.max([curve.best_on_draws() for curve in learned], axis=0)
        samples = {}
        for name, several in curves.items():
            values = np.array([curve.reach(wanted) for curve in several])
            draws = _stacked(several, width, partial(Curve.reach_on_draws, targets=on_draws))
            samples[name] = Sample(name, _logarithm(values), _logarithm(draws))
            reached[name] = int(np.isfinite(values).sum())
        terms += _signed([(weight, compared, against)], samples)
    interval = contrast(terms)
    shown = targets[0] if len(targets) == 1 else None
    return Ratio(*_exponential(interval), interval.over, seeds, shown, reached)


def _common_end(curves: Sequence[Curve]) -> float:
    """The most tokens that all runs have seen, leaving out those that diverged."""
    return min((float(curve.at[-1]) for curve in curves if not curve.diverged), default=0.0)


def _common_width(curves: Sequence[Curve]) -> int:
    """How many draws of the sentences all runs kept, leaving out those that diverged; 0 if not the same."""
    widths = {curve.draws.shape[1] for curve in curves if not curve.diverged}
    return widths.pop() if len(widths) == 1 else 0


def _stacked(curves: Sequence[Curve], width: int, read: Callable[[Curve], np.ndarray]) -> np.ndarray:
    """What is read from the draws of each curve, (runs, width); of a diverged one, the worst."""
    rows = [np.full(width, np.inf) if curve.diverged or not width else read(curve) for curve in curves]
    return np.stack(rows)


def _final(name: str, curves: Sequence[Curve], width: int, tokens: float, sign: float) -> Sample:
    values = np.array([curve.value_at(tokens) for curve in curves])
    return Sample(name, sign * values, sign * _stacked(curves, width, lambda curve: curve.draws_at(tokens)))


def _of_runs(condition: Condition, measure: Callable[[Result], float], logarithm: bool) -> Sample:
    values = np.array([measure(result) for result in condition.results], dtype=np.float64)
    return Sample(condition.name, _logarithm(values) if logarithm else values, np.empty((len(values), 0)))


def _logarithm(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithms: np.ndarray = np.log(values)
    return logarithms


def _exponential(interval: Interval) -> tuple[float, float, float]:
    return float(np.exp(interval.value)), float(np.exp(interval.low)), float(np.exp(interval.high))


def _check_clocks(quantity: str, conditions: Sequence[Condition]) -> None:
    clocks = {
        (result.cluster, result.profile): condition.name for condition in conditions for result in condition.results
    }
    if len(clocks) > 1:
        (one, name), (other, other_name) = list(clocks.items())[:2]
        raise UserError(
            f"{quantity} of {name} ({' '.join(one).strip()}) and of {other_name} ({' '.join(other).strip()}) are by "
            f"different clocks; compare runs in one kind of cluster and under one profile."
        )
