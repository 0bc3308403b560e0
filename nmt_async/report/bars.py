"""Quantities of whole runs: staleness, effective batch, throughput, waiting, and time to a quality as a ratio."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nmt_async.report.canvas import INK, MUTED, WIDTH, Plot, drawing, finished
from nmt_async.report.content import TimeToQuality
from nmt_async.report.looks import SERIES, Shown, short_name
from nmt_async.study.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 0.56
"""Inches of a staleness histogram's height."""

MOST_BARS = 24
"""Of a staleness histogram; with more values, a bar counts several."""


def _names_width(names: Sequence[str]) -> float:
    """Inches for names left of the axes."""
    return 0.26 + 0.076 * max(len(name) for name in names)


def _rows(drawn: Figure, names: Sequence[str], right: float, foot: float = 0.48) -> Axes:
    """Axes with one row for each name, the first on top."""
    height, left = drawn.get_figheight(), _names_width(names)
    axes = drawn.add_axes((left / WIDTH, foot / height, 1 - (left + right) / WIDTH, 1 - (foot + 0.36) / height))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    return axes


def _title(axes: Axes, names: Sequence[str], right: float, title: str) -> None:
    left = _names_width(names)
    axes.set_title(title, x=-(left - 0.1) / (WIDTH - left - right))


def amounts_plot(
    conditions: Sequence[Shown],
    quantity: Callable[[Result], float],
    *,
    name: str,
    title: str,
    unit: str,
    caption: str,
) -> Plot:
    """A bar for each condition, the mean over its seeds, and a dot for each seed."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    names = [condition.label for condition in conditions]
    with drawing(0.9 + 0.27 * len(names)) as drawn:
        axes = _rows(drawn, names, 0.62)
        said = []
        for row, condition in enumerate(conditions):
            values = [quantity(result) for result in condition.results]
            mean, colour = float(np.mean(values)), SERIES[condition.look.colour][0]
            axes.barh(row, mean, height=0.62, color=colour, alpha=0.75)
            if len(values) > 1:
                axes.plot(values, [row] * len(values), "o", color=INK, markersize=2.6, linestyle="none")
            axes.annotate(
                f"{mean:,.0f}", (max(*values, mean), row), (5, 0), textcoords="offset points", va="center",
                color=INK, fontsize=8.5,
            )  # fmt: skip
            said.append(f"{condition.name}: {mean:,.0f}")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        _title(axes, names, 0.62, title)
        return finished(drawn, name, title, caption, f"Bars. {'; '.join(said)} ({unit}).")


def staleness_plot(conditions: Sequence[Shown], suffix: str = "") -> Plot | None:
    """A histogram for each condition, over the pushes of all its seeds; None if there was no push.

    ``suffix`` ends the plot's name.
    """
    counted = [
        (condition, sum((Counter(dict(result.staleness)) for result in condition.results), Counter[int]()))
        for condition in conditions
    ]
    counted = [(condition, ages) for condition, ages in counted if ages.total()]
    if not counted:
        return None
    most = max(max(ages) for _, ages in counted)
    width = math.ceil((most + 1) / MOST_BARS)
    title, names = "Staleness of pushes", [condition.label for condition, _ in counted]
    shares = [_shares(ages, most, width) for _, ages in counted]
    top = 1.3 * max(float(each.max()) for each in shares)
    with drawing(0.84 + PANEL * len(counted)) as drawn:
        height, left = drawn.get_figheight(), max(0.95, _names_width(names))
        said = []
        for row, (condition, ages) in enumerate(counted):
            bottom = 0.48 + PANEL * (len(counted) - 1 - row)
            axes = drawn.add_axes(
                (left / WIDTH, bottom / height, 1 - (left + 0.1) / WIDTH, 0.9 * PANEL / height), ylim=(0, top)
            )
            _histogram(axes, condition, shares[row], width)
            mean = sum(age * count for age, count in ages.items()) / ages.total()
            for place, words, colour in ((0.62, condition.label, INK), (0.26, f"mean {mean:.2f}", MUTED)):
                axes.text(-0.05, place, words, transform=axes.transAxes, ha="right", va="center", color=colour)
            axes.tick_params(axis="x", labelbottom=row == len(counted) - 1)
            if row == 0:
                axes.set_title(title, x=-(left - 0.1) / (WIDTH - left - 0.1))
            said.append(f"{condition.name}: mean {mean:.2f}, at most {max(ages)}")
        axes.set_xlabel("staleness, in updates")
        several = f" A bar counts {width} values of staleness." if width > 1 else ""
        together = ", all seeds of a condition together" if any(len(one.results) > 1 for one, _ in counted) else ""
        caption = f"Share of pushes by the updates between their pull and their own update{together}.{several}"
        return finished(drawn, f"staleness{suffix}", title, caption, f"Histograms. {'; '.join(said)}.")


def _shares(ages: Counter[int], most: int, width: int) -> np.ndarray:
    """Of all pushes, in per cent: (bars,), each for ``width`` values of staleness."""
    shares = np.zeros(most // width + 1)
    for age, count in ages.items():
        shares[age // width] += 100 * count / ages.total()
    return shares


def _histogram(axes: Axes, condition: Shown, shares: np.ndarray, width: int) -> None:
    """Bars for ages from 0; a few of them have their figures on top, so no axis is needed for these."""
    places = np.arange(len(shares)) * width + (width - 1) / 2
    axes.bar(places, shares, width=0.82 * width, color=SERIES[condition.look.colour][0], alpha=0.85)
    axes.set_xlim(-0.6, max(len(shares) * width - 1, 1) + 0.6)
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if len(shares) <= 12:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        for place, share in zip(places, shares, strict=True):
            if share:
                words = f"{share:.0f} %" if share >= 0.5 else "<1 %"
                axes.annotate(words, (place, share), (0, 2), textcoords="offset points", ha="center", fontsize=7.5,
                              color=MUTED)  # fmt: skip


def waiting_plot(conditions: Sequence[Shown], suffix: str = "") -> Plot | None:
    """A bar for each worker of each condition, the mean over its seeds; None if nothing is known of waiting.

    ``suffix`` ends the plot's name.
    """
    shares = []
    for condition in conditions:
        known = [result.waiting for result in condition.results if result.waiting]
        workers = max(map(len, known), default=0)
        means = [float(np.mean([each[w] for each in known if w < len(each)])) for w in range(workers)]
        shares.append((condition, [100 * mean for mean in means]))
    shares = [(condition, means) for condition, means in shares if means]
    if not shares:
        return None
    names = [condition.label for condition, _ in shares]
    most = max(len(means) for _, means in shares)
    thick = min(0.13, 0.62 / most) if most > 1 else 0.16
    step = max(0.27, thick * most + 0.1)
    title = "Waiting share of each worker"
    with drawing(0.9 + step * len(names)) as drawn:
        axes = _rows(drawn, names, 0.42)
        for row, (condition, means) in enumerate(shares):
            places = row + (np.arange(len(means)) - (len(means) - 1) / 2) * thick / step
            axes.barh(places, means, height=0.8 * thick / step, color=SERIES[condition.look.colour][0], alpha=0.85)
            if most <= 6:
                for place, mean in zip(places, means, strict=True):
                    axes.annotate(f"{mean:.0f}", (mean, place), (3, 0), textcoords="offset points", va="center",
                                  fontsize=7, color=MUTED)  # fmt: skip
        top = max(max(means) for _, means in shares)
        axes.set_xlim(0, max(10.0, top * 1.05))
        axes.set_xlabel("waiting, % of a worker's time")
        axes.tick_params(axis="y", length=0)
        _title(axes, names, 0.42, title)
        said = "; ".join(
            f"{condition.name}: {', '.join(f'{mean:.0f} %' for mean in means)}" for condition, means in shares
        )
        mean_of = ", mean over seeds" if any(len(one.results) > 1 for one, _ in shares) else ""
        caption = f"The share of its time that a worker waited for a task: worker 0 on top{mean_of}."
        if any(len(result.waiting) < result.workers for one, _ in shares for result in one.results):
            caption += " Where machines share a run, the workers of the one that wrote this."
        return finished(drawn, f"waiting{suffix}", title, caption, f"Bars, a worker each. {said}.")


def ratio_plot(times: TimeToQuality, conditions: Sequence[Shown], number: int) -> Plot | None:
    """Ratios with their intervals on a logarithmic axis; None if nobody came to the quality."""
    looks = {condition.name: condition.look for condition in conditions}
    if not any(ratio.value for ratio in times.ratios):
        return None
    names = [short_name(ratio.condition) for ratio in times.ratios]
    title = f"Time to {times.quality}, {times.baseline} = 1"
    with drawing(0.92 + 0.27 * len(names)) as drawn:
        axes = _rows(drawn, names, 1.12)
        axes.axvline(1, color=MUTED, linewidth=1)
        extent = [1.0]
        said = []
        for row, ratio in enumerate(times.ratios):
            words = ratio_words(ratio.value, ratio.low, ratio.high)
            said.append(f"{ratio.condition}: {words}")
            axes.annotate(words, (1.02, row), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8,
                          annotation_clip=False)  # fmt: skip
            if ratio.value is None:
                continue
            look = looks[ratio.condition] if ratio.condition in looks else conditions[0].look
            colour = SERIES[look.colour][0]
            low, high = ratio.low or ratio.value, ratio.high or ratio.value
            axes.plot([low, high], [row, row], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([ratio.value], [row], marker=look.marker, color=colour, markersize=6)
            extent += [value for value in (low, ratio.value, high) if math.isfinite(value)]
        _ratio_axis(axes, min(extent), max(extent))
        _title(axes, names, 1.12, title)
        caption = f"Left of 1: faster than {times.baseline}. Lines are 95 % intervals."
        return finished(drawn, f"time-to-quality-{number}", title, caption, f"{'; '.join(said)}.")


def ratio_words(value: float | None, low: float | None, high: float | None) -> str:
    """``0.74 [0.69, 0.81]``."""
    if value is None:
        return "not reached"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _ratio_axis(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    low, high = min(low, 0.8) / 1.06, max(high, 1.25) * 1.06
    axes.set_xlim(low, high)
    places = [0.1, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 8, 10, 20, 50]
    shown = [place for place in places if low <= place <= high] if high / low < 8 else [0.1, 0.25, 0.5, 1, 2, 4, 10, 30]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("ratio of times")
    axes.tick_params(axis="y", length=0)
