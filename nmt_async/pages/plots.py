"""All plots of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nmt_async.pages.bars import amounts_plot, ratio_plot, staleness_plot, waiting_plot
from nmt_async.pages.canvas import Plot
from nmt_async.pages.content import TimeToQuality
from nmt_async.pages.lines import Line, line, lines_plot
from nmt_async.pages.looks import Shown
from nmt_async.study.result import Point, Result, Stretch

GROUPS = {
    "quality": "Quality on the validation set",
    "time": "Time to a quality",
    "updates": "Updates and workers",
    "training": "The course of training",
}
"""Parts of the page, in their order, and their headings."""

SEEDS = "Thick: the mean over seeds where all of them are; thin: each seed."
CUT = "Values of the first fifth may lie above the plot."


def validation(where: str, score: str) -> Callable[[Result], Line]:
    """A score of the validations over ``tokens``, ``updates`` or ``time`` (seconds)."""
    place = {"tokens": "tokens", "updates": "update", "time": "seconds"}[where]

    def of(result: Result) -> Line:
        points: Sequence[Point] = result.points
        return line([getattr(point, place) for point in points], [getattr(point, score) for point in points])

    return of


def stretches(where: str, quantity: str) -> Callable[[Result], Line]:
    """A quantity of the stretches of training over ``tokens``, ``updates`` or ``time`` (seconds)."""
    place = {"tokens": "tokens", "updates": "update", "time": "seconds"}[where]

    def of(result: Result) -> Line:
        parts: Sequence[Stretch] = result.stretches
        return line([getattr(part, place) for part in parts], [getattr(part, quantity) for part in parts])

    return of


def all_plots(conditions: Sequence[Shown], times: Sequence[TimeToQuality] = ()) -> tuple[Plot, ...]:
    """Those for which the results have something, in the order of the page.

    Raises:
        UserError: matplotlib is not installed.
    """
    seeds = SEEDS if any(len(condition.results) > 1 for condition in conditions) else ""
    plots: list[Plot | None] = []
    for score, words, cut in (
        ("cross_entropy", "Cross-entropy", True), ("bleu", "BLEU", False),
    ):  # fmt: skip
        for where in ("tokens", "updates", "time"):
            unit = "Nats per target token." if cut else "Of the validation set's translations."
            plots.append(
                lines_plot(
                    conditions, validation(where, score), name=f"{score.replace('_', '-')}-{where}", group="quality",
                    title=f"{words} over {where}", where=where, cut_beginning=cut,
                    caption=" ".join(filter(None, [unit, seeds, CUT if cut else ""])),
                )
            )  # fmt: skip
    plots += [ratio_plot(each, conditions, number) for number, each in enumerate(times, 1)]
    plots += [staleness_plot(conditions), waiting_plot(conditions)]
    if len(conditions) > 1:
        dots = "; a dot is a seed" if seeds else ""
        plots += [
            amounts_plot(
                conditions, lambda result: result.effective_batch, name="effective-batch", title="Effective batch",
                unit="target tokens in an update", caption=f"Mean of the run{dots}.",
            ),
            amounts_plot(
                conditions, lambda result: result.tokens_per_second, name="throughput", title="Throughput",
                unit="target tokens a second", caption=f"By the cluster's clock, mean of the run{dots}.",
            ),
        ]  # fmt: skip
    for quantity, where, title, caption, how in (
        ("loss", "tokens", "Training loss over tokens", f"Nats per target token, with label smoothing. {CUT}", "cut"),
        ("learning_rate", "updates", "Learning rate over updates", "Of the last update before each report.", "zero"),
        ("gradient_norm", "tokens", "Gradient norm over tokens", f"Mean of updates, before clipping. {CUT}", "cut"),
        ("tokens_per_second", "time", "Throughput over time", "Target tokens a second by the cluster's clock.", "zero"),
        ("effective_batch", "updates", "Effective batch over updates", "Target tokens in an update.", "zero"),
        ("staleness_mean", "updates", "Staleness over updates", "Mean of pushes, in updates.", "zero"),
    ):
        plots.append(
            lines_plot(
                conditions, stretches(where, quantity), name=f"course-{quantity.replace('_', '-')}", group="training",
                title=title, where=where, caption=caption, cut_beginning=how == "cut", from_zero=how == "zero",
                markers=False,
            )
        )  # fmt: skip
    return tuple(plot for plot in plots if plot is not None)
