"""The tables of a page, from results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nmt_async.formatting import NONE, duration, number, percent, short_count
from nmt_async.report.content import Cell, Column, Row, Table
from nmt_async.report.looks import Shown
from nmt_async.study.result import Result


def option_value(value: Any) -> str:
    """As one types it: ``0.0005``, ``true``; a dash for the default."""
    return NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def over_seeds(values: Sequence[float | None], digits: int) -> str:
    """``2.310``, or with several seeds their mean and ± half their range; a dash if one has none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) < len(values):
        return NONE
    mean = number(float(np.mean(known)), digits)
    return mean if len(known) == 1 else f"{mean} ± {number((max(known) - min(known)) / 2, digits)}"


def anchor(result: Result) -> str:
    """Of the run in the page."""
    return f"run-{result.setting.name}"


def settings_table(conditions: Sequence[Shown]) -> tuple[Table, dict[str, str]]:
    """What the conditions differ in, and the options that they share."""
    settings = [(condition, _options(condition.results[0])) for condition in conditions]
    keys = list(dict.fromkeys(key for _, options in settings for key in options))
    differ = [key for key in keys if len({option_value(options.get(key)) for _, options in settings}) > 1]
    shared = {key: option_value(settings[0][1][key]) for key in keys if key not in differ}
    rows: tuple[Row, ...] = tuple(
        (
            Cell(condition.name, anchor(condition.results[0])),
            condition.results[0].setting.mode,
            ", ".join(str(result.setting.seed) for result in condition.results),
            *(option_value(options.get(key)) for key in differ),
        )
        for condition, options in settings
    )
    columns = (Column("condition"), Column("mode"), Column("seeds"), *(Column(key) for key in differ))
    return Table("What the settings differ in", columns, rows), shared


def _options(result: Result) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"cluster": result.cluster, "workers": result.workers}
    facts |= {"profile": result.profile} if result.profile else {}
    return {**result.setting.options, **facts, "parameters": parameters(result), "data": result.data[:12]}


def parameters(result: Result) -> str:
    """How many the model has."""
    return short_count(result.parameters) if result.parameters else "unknown"


RunFigure = tuple[str, Callable[[Result], float | None], int]

OUTCOMES: tuple[RunFigure, ...] = (
    ("cross-entropy", lambda result: result.last.cross_entropy if result.last else None, 3),
    ("BLEU", lambda result: result.last.bleu if result.last else None, 1),
    ("chrF", lambda result: result.last.chrf if result.last else None, 1),
    ("tokens/s", lambda result: result.tokens_per_second, 0),
    ("effective batch", lambda result: result.effective_batch, 0),
    ("staleness", lambda result: result.staleness_mean, 2),
    ("waiting, %", lambda result: None if result.waiting_share is None else 100 * result.waiting_share, 1),
    ("MB a push", lambda result: result.bytes_per_push and result.bytes_per_push / 1e6, 2),
)
"""Figures of a run at its end: title, value, digits."""


def outcome_table(conditions: Sequence[Shown]) -> Table:
    """A row for each condition; chrF and BLEU only if something was translated."""
    results = [result for condition in conditions for result in condition.results]
    shown = _shown(results)
    several = any(len(condition.results) > 1 for condition in conditions)
    broken = any(condition.diverged for condition in conditions)
    columns = (
        Column("condition"), *((Column("seeds", True),) if several else ()),
        *((Column("diverged", True),) if broken else ()),
        *(Column(title, True) for title, _, _ in shown),
        Column("tokens", True), Column("updates", True), Column("time", True),
    )  # fmt: skip
    rows: list[Row] = []
    for condition in conditions:
        members = condition.results
        rows.append(
            (
                Cell(condition.name, anchor(members[0])),
                *((f"{len(members)}",) if several else ()),
                *((f"{condition.diverged}",) if broken else ()),
                *(over_seeds([value(result) for result in members], digits) for _, value, digits in shown),
                short_count(float(np.mean([result.tokens for result in members]))),
                f"{np.mean([result.updates for result in members]):,.0f}",
                duration(float(np.mean([result.seconds for result in members]))),
            )
        )
    mean = " Mean over seeds ± half their range." if several else ""
    return Table(f"At the end of {'each run' if len(results) > 1 else 'the run'}.{mean}", columns, tuple(rows))


def runs_table(results: Sequence[Result]) -> Table:
    """A row for each run, which leads to where it is told how it was made."""
    shown = _shown(results)
    columns = (
        Column("run"), *(Column(title, True) for title, _, _ in shown),
        Column("tokens", True), Column("updates", True), Column("time", True), Column("computed in", True),
    )  # fmt: skip
    rows: tuple[Row, ...] = tuple(
        (
            Cell(result.setting.name, anchor(result)),
            *(number(value(result), digits) for _, value, digits in shown),
            f"{result.tokens:,}",
            f"{result.updates:,}",
            duration(result.seconds),
            duration(result.wall_seconds),
        )
        for result in results
    )
    return Table("Each run at its end", columns, rows)


def machines_table(result: Result) -> Table:
    """The machines that share the run, a row each."""
    total = sum(machine.tokens for machine in result.machines)
    columns = (
        Column("machine"), Column("workers", True), Column("tokens", True), Column("tokens/s", True),
        Column("share of the tokens", True), Column("waiting", True), Column("staleness, mean", True),
    )  # fmt: skip
    rows = tuple(
        (
            machine.name,
            number(machine.workers or None),
            f"{machine.tokens:,}",
            number(machine.tokens_per_second),
            percent(machine.tokens / max(1, total), 1),
            percent(machine.waiting, 1),
            number(machine.staleness_mean, 2),
        )
        for machine in result.machines
    )
    return Table("The machines that share the run", columns, rows)


def points_table(result: Result) -> Table:
    """The validations of one run."""
    scored = any(point.bleu is not None for point in result.points)
    titles = ("update", "tokens", "epochs", "time", "cross-entropy", *(("BLEU", "chrF") if scored else ()))
    rows = tuple(
        (
            f"{point.update:,}",
            f"{point.tokens:,}",
            number(point.epochs, 2),
            duration(point.seconds),
            number(point.cross_entropy, 4),
            *((number(point.bleu, 2), number(point.chrf, 2)) if scored else ()),
        )
        for point in result.points
    )
    return Table("Validations", tuple(Column(title, True) for title in titles), rows)


def _shown(results: Sequence[Result]) -> list[RunFigure]:
    return [quantity for quantity in OUTCOMES if any(quantity[1](result) is not None for result in results)]
