"""Quantities over the course of training: a line for each condition, the mean over its seeds, and each seed thin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nmt_async.report.canvas import INK, MUTED, WIDTH, Plot, drawing, finished
from nmt_async.report.looks import SERIES, Shown
from nmt_async.study.conditions import is_diverged
from nmt_async.study.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 2.9
"""Inches, without names below."""

Line = tuple[np.ndarray, np.ndarray]
"""Where, ascending, and what: both (n,), finite."""

MOST_LABELLED = 8
"""So many conditions are named at their lines' ends; more of them below the plot."""


def line(where: Sequence[float], what: Sequence[float | None]) -> Line:
    """The points that have finite values, by where they are."""
    pairs = sorted(
        (x, y) for x, y in zip(where, what, strict=True) if y is not None and math.isfinite(y) and math.isfinite(x)
    )
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean where all of them are, at the points of the first and at both ends of what they share.

    Empty if they share nothing.
    """
    if not lines or any(not len(where) for where, _ in lines):
        return np.empty(0), np.empty(0)
    begin = max(where[0] for where, _ in lines)
    end = min(where[-1] for where, _ in lines)
    if begin > end:
        return np.empty(0), np.empty(0)
    first = lines[0][0]
    grid = np.unique(np.concatenate([[begin], first[(first >= begin) & (first <= end)], [end]]))
    return grid, np.mean([np.interp(grid, *each) for each in lines], axis=0)


def time_unit(seconds: float) -> tuple[float, str]:
    """How many seconds are one on an axis that goes to ``seconds``, and its name."""
    return (3600.0, "hours") if seconds >= 3 * 3600 else (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")


def lines_plot(
    conditions: Sequence[Shown],
    quantity: Callable[[Result], Line],
    *,
    name: str,
    title: str,
    where: str,
    caption: str,
    cut_beginning: bool = False,
    from_zero: bool = False,
    markers: bool = True,
) -> Plot | None:
    """Lines of ``quantity`` for all conditions; None if none of them has a point.

    Args:
        where: what the horizontal axis counts; ``time`` is in seconds in the quantity.
        cut_beginning: high values in the first fifth of the course may lie beyond the plot.
        from_zero: the vertical axis begins at 0, for quantities of which that is the natural measure.
    """
    members = [(condition, [quantity(result) for result in condition.results]) for condition in conditions]
    members = [(condition, lines) for condition, lines in members if any(len(one[0]) for one in lines)]
    if not members:
        return None
    furthest = max(float(one[0][-1]) for _, lines in members for one in lines if len(one[0]))
    scale, unit = time_unit(furthest) if where == "time" else (1.0, where)
    named = len(members) > 1
    below = named and len(members) > MOST_LABELLED
    with drawing(HEIGHT + (0.17 * math.ceil(len(members) / 2) if below else 0)) as drawn:
        height = drawn.get_figheight()
        longest = max(len(condition.label) for condition, _ in members)
        right = 0.13 + (0.072 * longest + 0.26 if named and not below else 0)
        foot = 0.5 + (height - HEIGHT)
        axes = drawn.add_axes((0.5 / WIDTH, foot / height, 1 - (0.5 + right) / WIDTH, 1 - (foot + 0.36) / height))
        ends = []
        for condition, lines in members:
            scaled = [(one[0] / scale, one[1]) for one in lines]
            ends.append((condition, _draw(axes, condition, scaled, markers)))
        _limits(axes, [(one[0] / scale, one[1]) for _, lines in members for one in lines], cut_beginning)
        if from_zero:
            axes.set_ylim(bottom=0, top=axes.get_ylim()[1] or 1)
        _axis(axes, unit)
        axes.set_title(title, x=-0.4 / (WIDTH - 0.5 - right))
        if below:
            _names_below(drawn, [condition for condition, _ in members], (foot - 0.42) / height)
        elif named:
            _names_at_ends(axes, ends)
        lasts = "; ".join(f"{condition.name}: {value:.4g}" for condition, (_, value) in ends)
        return finished(drawn, name, title, caption, f"Lines over {where}. Last values: {lasts}.")


def _draw(axes: Axes, condition: Shown, lines: Sequence[Line], markers: bool) -> tuple[float, float]:
    """The lines of one condition; where its most telling one ends."""
    colour, dash = SERIES[condition.look.colour][0], (0, condition.look.dash) if condition.look.dash else "-"
    mean = mean_line(lines)
    if len(lines) > 1:
        for one in lines:
            axes.plot(*one, color=colour, linewidth=0.7, alpha=0.45)
    if len(mean[0]):
        every = max(1, math.ceil(len(mean[0]) / 9))
        marked = ((len(mean[0]) - 1) % every, every)  # the last point has a marker
        marker = condition.look.marker if markers else ""
        axes.plot(*mean, color=colour, linestyle=dash, marker=marker, markevery=marked)
    for result, one in zip(condition.results, lines, strict=True):
        if is_diverged(result) and len(one[0]):
            axes.plot(one[0][-1:], one[1][-1:], color=colour, marker="x", markersize=7, markeredgewidth=1.8)
    last = mean if len(mean[0]) else max(lines, key=lambda one: one[0][-1] if len(one[0]) else -math.inf)
    return float(last[0][-1]), float(last[1][-1])


def _limits(axes: Axes, lines: Sequence[Line], cut_beginning: bool) -> None:
    shown = [what[where >= 0.2 * where[-1]] if cut_beginning else what for where, what in lines if len(where)]
    low, high = min(float(what.min()) for what in shown), max(float(what.max()) for what in shown)
    low = min(low, min(float(what.min()) for _, what in lines if len(what)))
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(0, max(float(where[-1]) for where, _ in lines if len(where)) * 1.02 or 1.0)


def _axis(axes: Axes, unit: str) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel({"tokens": "target tokens"}.get(unit, unit), labelpad=3)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if unit in ("tokens", "updates"):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.get_ylim()[1] >= 2000:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="x", visible=False)


def _names_at_ends(axes: Axes, ends: Sequence[tuple[Shown, tuple[float, float]]]) -> None:
    """Each condition's name beside its line, moved up or down where two would touch."""
    low, high = axes.get_ylim()
    wanted = [(y - low) / (high - low) for _, (_, y) in ends]
    beside = axes.get_yaxis_transform()
    for (condition, at), height in zip(ends, spread(wanted, 0.078), strict=True):
        place = low + height * (high - low)
        axes.annotate(
            condition.label, at, (1.075, place), textcoords=beside, va="center", color=INK, fontsize=8.5,
            annotation_clip=False, arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "linestyle": ":",
                                               "shrinkA": 9, "shrinkB": 3, "relpos": (0, 0.5)},
        )  # fmt: skip
        axes.plot(
            [1.04], [place], transform=beside, clip_on=False, marker=condition.look.marker, markersize=4.2,
            color=SERIES[condition.look.colour][0],
        )  # fmt: skip


def spread(wanted: Sequence[float], least: float) -> list[float]:
    """Heights from 0 to 1 in the order of ``wanted``, near them, ``least`` apart as far as there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    least = min(least, 1 / max(1, len(wanted) - 1))
    heights = [min(1.0, max(0.0, wanted[index])) for index in order]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + least)
    if heights and heights[-1] > 1:
        heights[-1] = 1.0
    for place in range(len(heights) - 2, -1, -1):
        heights[place] = min(heights[place], heights[place + 1] - least)
    result = [0.0] * len(wanted)
    for place, index in enumerate(order):
        result[index] = heights[place]
    return result


def _names_below(drawn: Figure, conditions: Sequence[Shown], place: float) -> None:
    from matplotlib.lines import Line2D

    samples = [
        Line2D([], [], color=SERIES[condition.look.colour][0], marker=condition.look.marker,
               linestyle=(0, condition.look.dash) if condition.look.dash else "-", label=condition.label)
        for condition in conditions
    ]  # fmt: skip
    drawn.legend(
        handles=samples, loc="upper left", ncols=2, frameon=False, fontsize=8, handlelength=3.2, columnspacing=1.2,
        bbox_to_anchor=(0.08, place), borderaxespad=0,
    )  # fmt: skip
