"""What a page says of a study: each condition beside a baseline in words, in a table and in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nmt_async.errors import UserError
from nmt_async.pages.beside import beside_table, interval_words, times_to_quality, verdict_of
from nmt_async.pages.content import Table, TimeToQuality, Verdict, Words
from nmt_async.pages.tables import duration
from nmt_async.report.records import short_count
from nmt_async.study.comparison import Difference, Pair, Ratio, compare
from nmt_async.study.conditions import Condition, by_condition
from nmt_async.study.result import Result
from nmt_async.study.verdicts import Verdict as Judged
from nmt_async.study.wording import basis


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
        baseline: the condition that the others are set beside; empty: none, as where they are of several families.
        judged: claims' verdicts; where there are none, the conditions beside the baseline are the verdict.
        notes: what the reader must know, as which settings are not finished.
        command: that makes the page.

    Raises:
        UserError: results that cannot be compared, or none of the baseline.
    """
    conditions = by_condition(results)
    beside: tuple[Verdict, ...] = ()
    tables: tuple[Table, ...] = ()
    times: tuple[TimeToQuality, ...] = ()
    if baseline:
        if baseline not in conditions:
            raise UserError(f"There is no result of {baseline}, which the others are to be set beside.")
        against = conditions[baseline]
        table = beside_table(list(conditions.values()), against)
        tables = (table,) if table else ()
        others = [condition for condition in conditions.values() if condition.name != baseline]
        beside = tuple(verdict for condition in others if (verdict := beside_verdict(condition, against)))
        try:
            times = times_to_quality(list(conditions.values()), against)
        except UserError:  # their seconds are by different clocks, or a run made no validation
            times = ()
    verdicts = tuple(map(verdict_of, judged)) or beside
    return Words(
        title=title, question=question, verdicts=verdicts, times=times, tables=tables, notes=tuple(notes),
        command=command, facts=_facts(results),
    )  # fmt: skip


def beside_verdict(condition: Condition, baseline: Condition) -> Verdict | None:
    """Whether the condition comes sooner to the quality that both reach, and how it ends; None if that is unknown."""
    try:
        final = compare("final cross-entropy", Pair(condition, baseline))
        time = compare("seconds to quality", Pair(condition, baseline))
    except UserError:
        return None
    assert isinstance(final, Difference)
    assert isinstance(time, Ratio)
    return Verdict(
        f"{condition.name} beside {baseline.name}",
        f"{_end_words(final, baseline.name)}\n\n{_time_words(time, baseline.name)}",
        "not reached" if math.isinf(time.value) else {-1: "sooner", 1: "later", 0: "undecided"}[_side(time, 1.0)],
    )


def _side(found: Difference | Ratio, even: float) -> int:
    """-1: below, 1: above, 0: the interval does not tell, or there is none."""
    if found.over == "nothing" or math.isnan(found.value):
        return 0
    return -1 if found.high < even else 1 if found.low > even else 0


def _end_words(final: Difference, baseline: str) -> str:
    if math.isnan(final.value):
        return "Runs of both diverged, so neither ends better."
    if math.isinf(final.value):
        return f"A run of {'it' if final.value > 0 else baseline} diverged, so it ends worse ({basis(final)})."
    words = {-1: "It ends better", 1: "It ends worse", 0: "Neither is shown to end better"}[_side(final, 0.0)]
    found = interval_words(final, 3)
    return f"{words}: its final cross-entropy less that of {baseline} is {found} nats ({basis(final)})."


def _time_words(time: Ratio, baseline: str) -> str:
    quality = "one cross-entropy" if time.target is None else f"a cross-entropy of {time.target:.3f}"
    rests = basis(replace(time, target=None))
    if math.isnan(time.value):
        return f"Neither comes to {quality} with all its seeds."
    if math.isinf(time.value) or not time.value:
        one, other = ("It", baseline) if time.value else (baseline, "it")
        return f"{one} does not come to {quality} with all its seeds, as {other} does ({rests})."
    words = {-1: "It comes sooner", 1: "It comes later", 0: "Neither is shown to come sooner"}[_side(time, 1.0)]
    return f"{words} to {quality}: in {interval_words(time, 2)} times the time of {baseline} ({rests})."


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
        "computed in": duration(float(np.sum([result.processor_seconds for result in results]))),
        "data": results[0].data[:12],
    }
