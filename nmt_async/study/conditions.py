"""Conditions: runs that differ in their seed alone, and which of them can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nmt_async.errors import UserError
from nmt_async.study.curves import Axis, Curve, Metric, is_diverged
from nmt_async.study.result import Result


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
