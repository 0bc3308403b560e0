"""What a page says of a study: each condition beside a baseline in words, in a table and in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nmt_async.errors import UserError
from nmt_async.formatting import duration, short_count
from nmt_async.report.beside_tables import beside_table, costs_table, times_to_quality
from nmt_async.report.content import Table, TimeToQuality, Words
from nmt_async.report.sentences import beside_verdict, notes_on
from nmt_async.report.verdicts import verdict_of
from nmt_async.study.comparison import Pair
from nmt_async.study.conditions import Condition, Conditions, beside, by_condition
from nmt_async.study.result import Result
from nmt_async.study.verdicts import Verdict

QUALITIES = 3
"""So many are plotted where all conditions have one baseline."""


def words_of(
    title: str,
    question: str,
    results: Sequence[Result],
    *,
    against: Mapping[str, str] | None = None,
    judged: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
    command: str = "",
) -> Words:
    """Words for the page of a study.

    Args:
        against: of each condition that is set beside another, that one.
        judged: claims' verdicts; where there are none, the conditions beside their baselines are the verdict.
        notes: what the reader must know, as which settings are not finished.
        command: that makes the page.

    Raises:
        UserError: results that cannot be compared.
    """
    conditions = by_condition(results, against)
    groups = _groups(conditions)
    pairs = [Pair(condition, baseline) for baseline, others in groups for condition in others]
    tables: list[Table] = []
    times: list[TimeToQuality] = []
    for baseline, others in groups:
        tables += [table for make in (beside_table, costs_table) if (table := make(others, baseline))]
        try:
            times += times_to_quality(others, baseline, QUALITIES if len(groups) == 1 else 1)
        except UserError:  # their seconds are by different clocks, or a run made no validation
            continue
    verdicts = tuple(map(verdict_of, judged)) or tuple(beside_verdict(*pair.conditions) for pair in pairs)
    return Words(
        title=title, question=question, verdicts=verdicts, times=tuple(times), tables=tuple(tables),
        notes=(*notes, *notes_on(pairs), *_clock_note(results)), command=command, facts=_facts(results),
    )  # fmt: skip


def _groups(conditions: Conditions) -> list[tuple[Condition, list[Condition]]]:
    """Each baseline with the conditions that are set beside it."""
    groups: dict[str, list[Condition]] = {}
    for condition, baseline in beside(conditions.values(), conditions):
        groups.setdefault(baseline.name, []).append(condition)
    return [(conditions[name], others) for name, others in groups.items()]


def _clock_note(results: Sequence[Result]) -> tuple[str, ...]:
    """Whose seconds the page tells, where they are not a clock's on the wall."""
    virtual = dict.fromkeys(result.setting.condition for result in results if result.cluster == "simulated")
    if not virtual:
        return ()
    whose = "" if all(result.cluster == "simulated" for result in results) else f" of {', '.join(virtual)}"
    return (f"Times{whose} are virtual: the profile of the simulated cluster makes them, not this machine.",)


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
