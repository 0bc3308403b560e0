"""Conditions beside a baseline, with the intervals of `nmt_async.study.comparison`, and verdicts of claims.

What a study has computed, in the form in which a page takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nmt_async.errors import UserError
from nmt_async.formatting import duration, number, short_count
from nmt_async.report.content import Cell, Column, Row, Table, TimeRatio, TimeToQuality
from nmt_async.study.comparison import Difference, Pair, Ratio, compare
from nmt_async.study.conditions import Condition, check_clocks, targets_of

QUANTITIES = (
    ("cross-entropy", "final cross-entropy", 3), ("BLEU", "final BLEU", 1), ("tokens to it", "tokens to quality", 2),
    ("time to it", "seconds to quality", 2), ("tokens/s", "tokens per second", 2),
)  # fmt: skip
"""Title, quantity, digits; the first two are differences, the others ratios."""


def beside_table(conditions: Sequence[Condition], baseline: Condition) -> Table | None:
    """How far each other condition is above the baseline at equal tokens, and what quality and speed are times its.

    Quantities that not all runs have, or that are by different clocks, are left out; None if there are none.
    """
    others = [condition for condition in conditions if condition.name != baseline.name]
    columns, cells = [Column("condition")], [[Cell(condition.name)] for condition in others]
    for title, quantity, digits in QUANTITIES:
        try:
            found = [compare(quantity, Pair(condition, baseline)) for condition in others]
        except UserError:
            continue
        columns.append(Column(title, number=True))
        for row, each in zip(cells, found, strict=True):
            row.append(Cell(interval_words(each, digits, higher_is_better="BLEU" in quantity)))
    if len(columns) == 1 or not others:
        return None
    rows: tuple[Row, ...] = tuple(map(tuple, cells))
    return Table(
        f"Beside {baseline.name}: cross-entropy and BLEU as differences at equal tokens; tokens and time to the best "
        f"cross-entropy that both reach, and throughput, as ratios. In brackets 95 % intervals.",
        tuple(columns),
        rows,
    )


def interval_words(found: Difference | Ratio, digits: int, higher_is_better: bool = False) -> str:
    """``+0.051 [−0.113, +0.215]``, ``1.33 [1.06, 1.68]``; words where there is no such number."""
    if not math.isfinite(found.value) or (isinstance(found, Ratio) and not found.value):
        return _no_number(found, higher_is_better)
    signed = isinstance(found, Difference)
    value, low, high = (number(each, digits, signed) for each in (found.value, found.low, found.high))
    if found.over == "nothing" or not math.isfinite(found.low) or not math.isfinite(found.high):
        return f"{value} [no interval]"
    return f"{value} [{low}, {high}]"


def _no_number(found: Difference | Ratio, higher_is_better: bool) -> str:
    """Somebody diverged, or did not reach the quality."""
    both, condition, other = ("both diverged", "diverged", "the other diverged")
    if isinstance(found, Ratio):
        both, condition, other = ("neither reaches it", "not reached", "only it reaches it")
    if math.isnan(found.value):
        return both
    worse = found.value > 0 if not higher_is_better else found.value < 0
    return condition if worse else other


def costs_table(conditions: Sequence[Condition], baseline: Condition) -> Table | None:
    """Tokens and time to several qualities, as ratios to the baseline's; None if runs made no validation.

    Time is left out where it is by different clocks.
    """
    axes: dict[str, Callable[[float], str]] = {"tokens": short_count, "seconds": duration}
    others = [condition for condition in conditions if condition.name != baseline.name]
    try:
        check_clocks("seconds to quality", [baseline, *others])
    except UserError:
        del axes["seconds"]
    columns = [Column("condition"), Column("cross-entropy", number=True)]
    for axis in axes:
        named = "time" if axis == "seconds" else axis
        columns += [Column(f"{named} of {baseline.name}", number=True), Column("times it", number=True)]
    rows: list[Row] = []
    try:
        for condition in others:
            for target in targets_of([condition, baseline]):
                cells: list[Cell] = []
                for axis, words in axes.items():
                    own = compare(f"{axis} to quality", Pair(baseline), target=target).value
                    found = compare(f"{axis} to quality", Pair(condition, baseline), target=target)
                    cells += [Cell(words(own) if math.isfinite(own) else "not reached"), Cell(interval_words(found, 2))]
                rows.append((Cell(condition.name), Cell(f"{target:.2f}"), *cells))
    except UserError:
        return None
    if not rows:
        return None
    return Table(f"What qualities cost beside {baseline.name}", tuple(columns), tuple(rows))


def times_to_quality(
    conditions: Sequence[Condition], baseline: Condition, qualities: int | Sequence[float] = 3
) -> tuple[TimeToQuality, ...]:
    """Time to each cross-entropy as a ratio to the baseline's.

    Args:
        qualities: in nats per target token, or how many round ones, the hardest of them the best that all reach.

    Raises:
        UserError: the runs' seconds are by different clocks, or a run has no validation.
    """
    others = [condition for condition in conditions if condition.name != baseline.name]
    check_clocks("time to quality", [baseline, *others])
    wanted = targets_of([*others, baseline], count=qualities) if isinstance(qualities, int) else qualities
    return tuple(
        TimeToQuality(
            f"cross-entropy {target:.2f}", baseline.name,
            tuple(_ratio(condition, baseline, target) for condition in others),
        )
        for target in wanted
    )  # fmt: skip


def _ratio(condition: Condition, baseline: Condition, target: float) -> TimeRatio:
    found = compare("seconds to quality", Pair(condition, baseline), target=target)
    if not math.isfinite(found.value) or not found.value:
        return TimeRatio(condition.name, None)
    known = found.over != "nothing" and math.isfinite(found.low) and math.isfinite(found.high) and found.low > 0
    return TimeRatio(condition.name, found.value, *((found.low, found.high) if known else ()))
