"""Conditions beside a baseline, with the intervals of `nmt_async.study.comparison`, and verdicts of claims.

What a study has computed, in the form in which a page takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nmt_async.errors import UserError
from nmt_async.pages.content import Cell, Column, Ratio, Row, Table, TimeToQuality, Verdict
from nmt_async.study.comparison import Pair, compare
from nmt_async.study.conditions import Condition, check_clocks, targets_of
from nmt_async.study.verdicts import Verdict as Judged
from nmt_async.study.wording import figure

DIFFERENCES = {"cross-entropy": "final cross-entropy", "BLEU": "final BLEU"}
RATIOS = {
    "tokens to it": "tokens to quality", "updates to it": "updates to quality", "time to it": "seconds to quality",
    "tokens/s": "tokens per second",
}  # fmt: skip


def beside_table(conditions: Sequence[Condition], baseline: Condition) -> Table | None:
    """How far each other condition is above the baseline at equal tokens, and what quality and speed are times its.

    Quantities that not all runs have, or that are by different clocks, are left out; None if there are none.
    """
    others = [condition for condition in conditions if condition.name != baseline.name]
    columns, cells = [Column("condition")], [[Cell(condition.name)] for condition in others]
    for title, quantity in {**DIFFERENCES, **RATIOS}.items():
        try:
            found = [compare(quantity, Pair(condition, baseline)) for condition in others]
        except UserError:
            continue
        columns.append(Column(title, number=True))
        for row, each in zip(cells, found, strict=True):
            row.append(Cell(figure(each)))
    if len(columns) == 1 or not others:
        return None
    rows: tuple[Row, ...] = tuple(map(tuple, cells))
    return Table(
        f"Beside {baseline.name}: cross-entropy and BLEU as differences at equal tokens; what the best cross-entropy "
        f"that both reach costs, and throughput, as ratios",
        tuple(columns),
        rows,
    )


def times_to_quality(
    conditions: Sequence[Condition], baseline: Condition, targets: Sequence[float] | None = None
) -> tuple[TimeToQuality, ...]:
    """Time to each cross-entropy as a ratio to the baseline's.

    Args:
        targets: nats per target token; by default round ones, the hardest of them the best that all reach.

    Raises:
        UserError: the runs' seconds are by different clocks, or a run has no validation.
    """
    others = [condition for condition in conditions if condition.name != baseline.name]
    check_clocks("time to quality", [baseline, *others])
    wanted = targets_of([*others, baseline], count=3) if targets is None else targets
    return tuple(
        TimeToQuality(
            f"cross-entropy {target:.2f}", baseline.name,
            tuple(_ratio(condition, baseline, target) for condition in others),
        )
        for target in wanted
    )  # fmt: skip


def _ratio(condition: Condition, baseline: Condition, target: float) -> Ratio:
    found = compare("seconds to quality", Pair(condition, baseline), target=target)
    if not math.isfinite(found.value) or not found.value:
        return Ratio(condition.name, None)
    known = found.over != "nothing" and math.isfinite(found.low) and math.isfinite(found.high) and found.low > 0
    return Ratio(condition.name, found.value, *((found.low, found.high) if known else ()))


def verdict_of(judged: Judged) -> Verdict:
    """A claim's verdict with the figures behind it."""
    sentences = "\n\n".join(
        finding.sentence if len(judged.findings) == 1 else f"{finding.outcome}: {finding.sentence}"
        for finding in judged.findings
    )
    return Verdict(judged.claim.says, sentences, judged.outcome, source=judged.claim.source)
