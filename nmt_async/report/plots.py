"""All plots of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nmt_async.report.bars import amounts_plot, ratio_plot, staleness_plot, waiting_plot
from nmt_async.report.canvas import Plot
from nmt_async.report.content import TimeToQuality
from nmt_async.report.lines import Line, line, lines_plot
from nmt_async.report.looks import MOST_TOGETHER, Shown, look, short_name
from nmt_async.study.result import Point, Result, TrainPoint

QUALITY = "Quality on the validation set"
TIME = "Time to a quality"
MACHINES = "Machines"
UPDATES = "Updates and workers"
COURSE = "The course of training"
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
        parts: Sequence[TrainPoint] = result.stretches
        return line([getattr(part, place) for part in parts], [getattr(part, quantity) for part in parts])

    return of


def all_plots(conditions: Sequence[Shown], times: Sequence[TimeToQuality] = ()) -> tuple[Plot, ...]:
    """Those for which the results have something, in the order of the page, each in its group.

    Raises:
        UserError: matplotlib is not installed.
    """
    families: dict[str, list[Shown]] = {}
    for condition in conditions:
        families.setdefault(condition.family, []).append(condition)
    ratios = _in(TIME, [ratio_plot(each, conditions, number) for number, each in enumerate(times, 1)])
    if list(families) == [""]:
        return (
            *_in(QUALITY, _quality(conditions, ("tokens", "updates", "time"))),
            *ratios,
            *_in(MACHINES, _machines(conditions)),
            *_in(UPDATES, [staleness_plot(conditions), waiting_plot(conditions), *_amounts(conditions)]),
            *_in(COURSE, _course(conditions)),
        )
    plots = [*ratios]
    for number, (family, members) in enumerate(families.items(), 1):
        suffix = f"-{number}"
        plots += _in(
            family,
            [*_quality(members, ("tokens", "time"), suffix), staleness_plot(members, suffix),
             waiting_plot(members, suffix)],
        )  # fmt: skip
    return tuple(plots)


def _in(group: str, plots: Sequence[Plot | None]) -> list[Plot]:
    return [replace(plot, group=group) for plot in plots if plot is not None]


def _several(conditions: Sequence[Shown]) -> bool:
    return any(len(condition.results) > 1 for condition in conditions)


def _quality(conditions: Sequence[Shown], over: Sequence[str], suffix: str = "") -> list[Plot | None]:
    seeds = SEEDS if _several(conditions) else ""
    return [
        lines_plot(
            conditions, validation(where, score), name=f"{score.replace('_', '-')}-{where}{suffix}",
            title=f"{title} over {where}", where=where, cut_beginning=bool(cut),
            caption=" ".join(filter(None, [unit, seeds, cut])),
        )
        for score, title, unit, cut in (
            ("cross_entropy", "Cross-entropy", "Nats per target token.", CUT),
            ("bleu", "BLEU", "Of the validation set's translations.", ""),
        )
        for where in over
    ]  # fmt: skip


def _amounts(conditions: Sequence[Shown]) -> list[Plot | None]:
    """None for a single condition: its course of training says more."""
    if len(conditions) == 1:
        return []
    dots = "; a dot is a seed" if _several(conditions) else ""
    return [
        amounts_plot(
            conditions, lambda result: result.effective_batch, name="effective-batch", title="Effective batch",
            unit="target tokens in an update", caption=f"Mean of the run{dots}.",
        ),
        amounts_plot(
            conditions, lambda result: result.tokens_per_second, name="throughput", title="Throughput",
            unit="target tokens a second", caption=f"By the cluster's clock, mean of the run{dots}.",
        ),
    ]  # fmt: skip


def _machines(conditions: Sequence[Shown]) -> list[Plot | None]:
    """None unless there is a single run, which machines share: of several runs the tables tell."""
    results = [result for condition in conditions for result in condition.results]
    if len(results) != 1 or not results[0].machines:
        return []
    machines, told = telling_machines(results[0])
    return [
        lines_plot(
            machines, machine_stretches(quantity, scale), name=f"machines-{name}", title=title, where="time",
            caption=f"{caption}{told}", from_zero=True, markers=False,
        )
        for name, quantity, scale, title, caption in (
            ("throughput", "tokens_per_second", 1, "Throughput of each machine",
             "Target tokens a second that counted, of each stretch between two reports."),
            ("waiting", "waiting", 100, "Waiting on each machine", "Of the time of its workers, in %."),
            ("staleness", "staleness_mean", 1, "Staleness by machine", "Mean of its pushes, in updates."),
        )
    ]  # fmt: skip


def machine_stretches(quantity: str, scale: float) -> Callable[[Result], Line]:
    """A quantity of the stretches of the first machine over seconds, so many times as large."""

    def of(result: Result) -> Line:
        parts = result.machines[0].stretches
        values = (getattr(part, quantity) for part in parts)
        return line([part.seconds for part in parts], [None if value is None else scale * value for value in values])

    return of


def telling_machines(result: Result) -> tuple[list[Shown], str]:
    """The run as it is to each machine, which looks like a condition; where there are many, the fastest and slowest.

    And a sentence that says so; empty if all are there.
    """
    chosen = list(result.machines)
    if len(chosen) > MOST_TOGETHER:
        by_rate = sorted(chosen, key=lambda machine: -machine.tokens_per_second)
        half = MOST_TOGETHER // 2
        apart = (*by_rate[:half], *by_rate[-half:])
        chosen = [machine for machine in chosen if machine in apart]
    told = "" if len(chosen) == len(result.machines) else (
        f" Of {len(result.machines)} machines, those with the most and with the fewest tokens a second."
    )  # fmt: skip
    short = [machine.name.partition(" (")[0] for machine in chosen]
    if len(set(short)) < len(short):  # another host has taken a rank over
        short = [short_name(machine.name) for machine in chosen]
    shown = [
        Shown(machine.name, (replace(result, machines=(machine,)),), look=look(number), label=label)
        for number, (machine, label) in enumerate(zip(chosen, short, strict=True))
    ]
    return shown, told


def _course(conditions: Sequence[Shown]) -> list[Plot | None]:
    return [
        lines_plot(
            conditions, stretches(where, quantity), name=f"course-{quantity.replace('_', '-')}", title=title,
            where=where, caption=caption, cut_beginning=how == "cut", from_zero=how == "zero", markers=False,
        )
        for quantity, where, title, caption, how in (
            ("loss", "tokens", "Training loss over tokens", f"Nats per target token, with label smoothing. {CUT}",
             "cut"),
            ("learning_rate", "updates", "Learning rate over updates", "Of the last update before each report.",
             "zero"),
            ("gradient_norm", "tokens", "Gradient norm over tokens", f"Mean of updates, before clipping. {CUT}", "cut"),
            ("tokens_per_second", "time", "Throughput over time", "Target tokens a second by the cluster's clock.",
             "zero"),
            ("effective_batch", "updates", "Effective batch over updates", "Target tokens in an update.", "zero"),
            ("staleness_mean", "updates", "Staleness over updates", "Mean of pushes, in updates.", "zero"),
        )
    ]  # fmt: skip
