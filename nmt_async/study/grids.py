"""Tables of two ways at once: batch size by staleness, and learning rate by way of updating."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from nmt_async.formatting import NONE, markdown_table, number
from nmt_async.study.comparison import Pair, compare
from nmt_async.study.conditions import Condition, Conditions, curves_of, shared_words
from nmt_async.study.tables import anchor, link
from nmt_async.study.wording import figure

FINAL = "final cross-entropy"


def isolation_table(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """Final cross-entropy by batch and staleness, what either costs, and what they cost beyond their sum.

    Of the four conditions, which is which is told by the batch and the staleness that their runs had.
    """
    corners = _corners(shown)
    if corners is None:
        found = ", ".join(link(condition) for condition in shown)
        return f"The table needs runs of its four corners, each of another batch and staleness; there are {found}."
    rows = []
    for large in (True, False):
        fresh, stale = corners[large, False], corners[large, True]
        rows.append([_batch(fresh, stale), _value(fresh), _value(stale), _above(Pair(stale, fresh))])
    costs = [Pair(corners[False, stale], corners[True, stale]) for stale in (False, True)]
    beyond = [Pair(corners[large, True], corners[large, False]) for large in (False, True)]
    rows.append(["the small batch costs", *map(_above, costs), f"beyond their sum: {_above(*beyond)}"])
    head = ["target tokens in an update", *(_staleness(corners, stale) for stale in (False, True)), "staleness costs"]
    return markdown_table(head, rows)


def rates_table(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """Final cross-entropy at each learning rate of what differs in nothing else; the best of each in bold."""
    alike: dict[str, dict[float, Condition]] = {}
    for condition in shown:
        options = dict(condition.results[0].setting.options)
        rate = options.pop("learn-rate", None)
        if isinstance(rate, int | float):
            alike.setdefault(json.dumps(options, sort_keys=True), {})[float(rate)] = condition
    columns = list(alike.values())
    names = [[condition.name for condition in at.values()] for at in columns]
    best = [min(at, key=lambda rate: _mean_end(at[rate])) for at in columns]
    rows = [
        [
            f"{rate:g}",
            *(_rate_cell(at.get(rate), first == rate and len(at) > 1) for at, first in zip(columns, best, strict=True)),
        ]
        for rate in sorted({rate for at in columns for rate in at})
    ]
    return markdown_table(["learning rate", *(shared_words(each) or each[0] for each in names)], rows)


def _corners(shown: Sequence[Condition]) -> dict[tuple[bool, bool], Condition] | None:
    """The conditions by (large batch, stale); None unless there is one of each."""
    batch = {condition.name: _mean("effective batch", condition) for condition in shown}
    age = {condition.name: _mean("staleness", condition) for condition in shown}
    middle = math.sqrt(max(batch.values()) * min(batch.values()))
    corners = {
        (batch[condition.name] > middle, age[condition.name] > max(age.values()) / 2): condition for condition in shown
    }
    return corners if len(shown) == len(corners) == 4 else None


def _mean(quantity: str, condition: Condition) -> float:
    return compare(quantity, Pair(condition)).value


def _batch(*conditions: Condition) -> str:
    return number(float(np.mean([_mean("effective batch", condition) for condition in conditions])))


def _staleness(corners: dict[tuple[bool, bool], Condition], stale: bool) -> str:
    ages = [_mean("staleness", corners[large, stale]) for large in (True, False)]
    return f"staleness {number(float(np.mean(ages)), 2)}"


def _value(condition: Condition) -> str:
    return f"[{figure(compare(FINAL, Pair(condition)))}](#{anchor(condition.name)})"


def _above(pair: Pair, beside: Pair | None = None) -> str:
    return figure(compare(FINAL, pair, beside))


def _mean_end(condition: Condition) -> float:
    return float(np.mean([np.inf if curve.diverged else curve.values[-1] for curve in curves_of(condition)]))


def _rate_cell(condition: Condition | None, best: bool) -> str:
    if condition is None:
        return NONE
    value = _value(condition)
    return f"**{value}**" if best else value
