"""What a page says of a study: each condition beside a baseline in words, in a table and in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nmt_async.display.records import short_count
from nmt_async.errors import UserError
from nmt_async.report.beside import beside_table, costs_table, times_to_quality, verdict_of
from nmt_async.report.comparison import beside_verdict, notes_on
from nmt_async.report.content import Table, TimeToQuality, Words
from nmt_async.report.tables import duration
from nmt_async.study.comparison import Pair
from nmt_async.study.conditions import Condition, by_condition
from nmt_async.study.result import Result
from nmt_async.study.tables import baseline_of
from nmt_async.study.verdicts import Verdict as Judged

QUALITIES = 3
"""So many are plotted where all conditions have one baseline."""


def words_of(
    title: str,
    question: str,
    results: Sequence[Result],
    *,
    baseline: str = "",
    judged: Sequence[Judged] = (),
    notes: Sequence[str] = (),
    command: str = "",
) -> Words:
    """Words for the page of a study.

    Args:
        baseline: the condition that the others are set beside; empty: the sync that differs from each in nothing else,
            where there is one.
        judged: claims' verdicts; where there are none, the conditions beside their baselines are the verdict.
        notes: what the reader must know, as which settings are not finished.
        command: that makes the page.

    Raises:
        UserError: results that cannot be compared, or none of the baseline.
    """
    conditions = by_condition(results)
    groups = _groups(conditions, baseline)
    pairs = [Pair(condition, against) for against, others in groups for condition in others]
    tables: list[Table] = []
    times: list[TimeToQuality] = []
    for against, others in groups:
        tables += [table for make in (beside_table, costs_table) if (table := make(others, against))]
        try:
            times += times_to_quality(others, against, QUALITIES if len(groups) == 1 else 1)
        except UserError:  # their seconds are by different clocks, or a run made no validation
            continue
    verdicts = tuple(map(verdict_of, judged)) or tuple(beside_verdict(*pair.conditions) for pair in pairs)
    return Words(
        title=title, question=question, verdicts=verdicts, times=tuple(times), tables=tuple(tables),
        notes=(*notes, *notes_on(pairs)), command=command, facts=_facts(results),
    )  # fmt: skip


def _groups(conditions: Mapping[str, Condition], baseline: str) -> list[tuple[Condition, list[Condition]]]:
    """Each baseline with the conditions that are set beside it."""
    if baseline:
        if baseline not in conditions:
            raise UserError(f"There is no result of {baseline}, which the others are to be set beside.")
        against = conditions[baseline]
        return [(against, [condition for condition in conditions.values() if condition.name != baseline])]
    groups: dict[str, list[Condition]] = {}
    for condition in conditions.values():
        if own := baseline_of(condition, conditions):
            groups.setdefault(own.name, []).append(condition)
    return [(conditions[name], others) for name, others in groups.items()]


def _facts(results: Sequence[Result]) -> dict[str, str]:
    tokens = [result.tokens for result in results]
    few, many = short_count(min(tokens)), short_count(max(tokens))
    clusters = dict.fromkeys(
        f"{result.workers} {result.cluster}{f', {result.profile}' if result.profile else ''}" for result in results
    )
    return {
        "runs": f"{len(results)}",
        "target tokens a run": few if few == many else f"{few} to {many}",
        "workers": "; ".join(clusters),
        "computed in": duration(sum(result.wall_seconds or 0.0 for result in results)),
        "data": results[0].data[:12],
    }
