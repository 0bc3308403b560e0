"""Conditions compared: differences at equal tokens, and what a quality costs as a ratio, each with its interval.

A comparison is a sum of means over seeds with signs (`nmt_async.study.bootstrap`), of logarithms where it is a ratio;
so a difference of differences, or a ratio of ratios, is a longer sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nmt_async.errors import UserError
from nmt_async.study.bootstrap import Interval, Sample, contrast
from nmt_async.study.conditions import Axis, Condition, Curve, Metric, check_clocks, curves_of
from nmt_async.study.result import Result

FINAL: dict[str, Metric] = {"final cross-entropy": "cross-entropy", "final BLEU": "bleu"}
"""Compared as differences at equal tokens."""

TO_QUALITY: dict[str, Axis] = {
    "tokens to quality": "tokens", "updates to quality": "updates", "seconds to quality": "seconds",
}  # fmt: skip
"""Compared as ratios."""

OF_RUN: dict[str, Callable[[Result], float]] = {
    "staleness": lambda result: result.staleness_mean,
    "waiting share": lambda result: result.waiting_share or 0.0,
}
"""Compared as differences."""

RATES: dict[str, Callable[[Result], float]] = {
    "tokens per second": lambda result: result.tokens_per_second,
    "effective batch": lambda result: result.effective_batch,
}
"""Compared as ratios."""

QUANTITIES = (*FINAL, *TO_QUALITY, *OF_RUN, *RATES)
CLOCKED = ("seconds to quality", "tokens per second", "waiting share")
"""Quantities by the cluster's clock: only runs under one profile can be compared in them."""


@dataclass(frozen=True)
class Difference:
    """A mean over seeds, or how far it is above another's.

    Attributes:
        value, low, high: in the quantity's unit, with the ends of the 95 % interval; infinite where runs diverged.
        over: what the interval covers: ``seeds and sentences``, ``sentences only``, ``seeds only``, ``nothing``.
        seeds: of each condition, how many.
        tokens: at which the runs were compared; None where the quantity is of whole runs, or read at several.
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


@dataclass(frozen=True)
class Pair:
    """A condition and what it is compared against; None: nothing, its own mean is the figure.

    Attributes:
        tokens: where final quantities are read; None: at the last that all runs of a comparison have seen.
    """

    compared: Condition
    against: Condition | None = None
    tokens: float | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """One or both."""
        return (self.compared, self.against) if self.against else (self.compared,)


def compare(
    quantity: str, pair: Pair, beside: Pair | None = None, *, target: float | None = None
) -> Difference | Ratio:
    """How far the quantity of a condition is above that of another, or how many times it is.

    Args:
        quantity: one of `QUANTITIES`.
        beside: another pair, whose difference is taken off, or by whose ratio it is divided.
        target: a cross-entropy, for what a quality costs. By default the best that all runs of a pair reach, and on a
            draw of sentences the best that they reach on it.

    Raises:
        UserError: a run without validations (or without BLEU), too short for the tokens asked, or by another clock.
    """
    pairs = [(1.0, pair), *([(-1.0, beside)] if beside else [])]
    seeds = {condition.name: len(condition.results) for _, each in pairs for condition in each.conditions}
    if quantity in CLOCKED:
        for _, each in pairs:
            check_clocks(quantity, each.conditions)
    if quantity in FINAL:
        return _final(FINAL[quantity], pairs, seeds)
    if quantity in TO_QUALITY:
        return _to_quality(TO_QUALITY[quantity], pairs, seeds, target)
    measure = OF_RUN.get(quantity) or RATES[quantity]
    terms: list[tuple[float, Sample]] = []
    for weight, each in pairs:
        terms += _signed(weight, [_of_runs(condition, measure, quantity in RATES) for condition in each.conditions])
    interval = contrast(terms)
    if quantity in OF_RUN:
        return Difference(interval.value, interval.low, interval.high, interval.over, seeds)
    return Ratio(*_exponential(interval), interval.over, seeds)


Pairs = Sequence[tuple[float, Pair]]


def _signed(weight: float, samples: Sequence[Sample]) -> list[tuple[float, Sample]]:
    return list(zip((weight, -weight), samples, strict=False))


def _final(metric: Metric, pairs: Pairs, seeds: Mapping[str, int]) -> Difference:
    curves = {each.name: curves_of(each, "tokens", metric) for _, pair in pairs for each in pair.conditions}
    everything = [curve for several in curves.values() for curve in several]
    end, width = _common_end(everything), _common_width(everything)
    sign = -1.0 if metric == "bleu" else 1.0
    terms: list[tuple[float, Sample]] = []
    for weight, pair in pairs:
        tokens = end if pair.tokens is None else pair.tokens
        samples = []
        for condition in pair.conditions:
            several = curves[condition.name]
            if any(not curve.diverged and not curve.at[0] <= tokens <= curve.at[-1] for curve in several):
                raise UserError(
                    f"{condition.name} has no validations around {tokens:,.0f} tokens; compare it elsewhere."
                )
            values = np.array([curve.value_at(tokens) for curve in several])
            draws = _stacked(several, width, partial(Curve.draws_at, abscissa=tokens))
            samples.append(Sample(condition.name, sign * values, sign * draws))
        terms += _signed(weight, samples)
    interval = contrast(terms)
    read_at = {end if pair.tokens is None else pair.tokens for _, pair in pairs}
    shown = read_at.pop() if len(read_at) == 1 else None
    return Difference(interval.value, interval.low, interval.high, interval.over, seeds, shown)


def _to_quality(axis: Axis, pairs: Pairs, seeds: Mapping[str, int], target: float | None) -> Ratio:
    terms: list[tuple[float, Sample]] = []
    reached: dict[str, int] = {}
    targets = []
    for weight, pair in pairs:
        curves = {condition.name: curves_of(condition, axis) for condition in pair.conditions}
        everything = [curve for several in curves.values() for curve in several]
        learned = [curve for curve in everything if not curve.diverged]
        width = _common_width(everything)
        wanted = target if target is not None else max((curve.best for curve in learned), default=np.inf)
        targets.append(wanted)
        on_draws = np.full(width, wanted)
        if target is None and width:
            on_draws = np.max([curve.best_on_draws() for curve in learned], axis=0)
        samples = []
        for name, several in curves.items():
            values = np.array([curve.reach(wanted) for curve in several])
            draws = _stacked(several, width, partial(Curve.reach_on_draws, targets=on_draws))
            samples.append(Sample(name, _logarithm(values), _logarithm(draws)))
            reached[name] = int(np.isfinite(values).sum())
        # A condition against itself is one entry of `curves`, and a ratio of one.
        terms += _signed(weight, samples if len(samples) == len(pair.conditions) else samples * 2)
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


def _of_runs(condition: Condition, measure: Callable[[Result], float], logarithm: bool) -> Sample:
    values = np.array([measure(result) for result in condition.results], dtype=np.float64)
    return Sample(condition.name, _logarithm(values) if logarithm else values, np.empty((len(values), 0)))


def _logarithm(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        logarithms: np.ndarray = np.log(values)
    return logarithms


def _exponential(interval: Interval) -> tuple[float, float, float]:
    return float(np.exp(interval.value)), float(np.exp(interval.low)), float(np.exp(interval.high))
