"""The files of a planning simulation: ``predictions.csv``, and plots over the number of workers."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nmt_async.errors import UserError
from nmt_async.planning.simulation import Prediction
from nmt_async.report.canvas import WIDTH, Plot, drawing, finished
from nmt_async.report.looks import SERIES, look, short_name
from nmt_async.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CSV = "predictions.csv"
HEIGHT = 2.9
"""Inches, without names below."""

QUANTITIES: tuple[tuple[str, str, str, bool, Callable[[Prediction], float]], ...] = (
    ("throughput", "Throughput", "target tokens a second", True, lambda made: made.tokens_per_second),
    ("staleness", "Staleness", "updates, mean of pushes", False, lambda made: made.staleness_mean),
    ("effective-batch", "Effective batch", "target tokens in an update", True, lambda made: made.effective_batch),
    ("waiting", "Waiting", "% of workers' time", False, lambda made: 100 * made.waiting_share),
)
"""Of each plot: name, title, unit, whether its axis is logarithmic from the first decade on, and what it shows."""


def csv_text(predictions: Sequence[Prediction]) -> str:
    """A header, and a row for each prediction; columns are the attributes of `Prediction`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Prediction)]
    writer.writerow(names)
    writer.writerows([getattr(made, name) for name in names] for made in predictions)
    return text.getvalue()


def write_predictions(folder: Path, predictions: Sequence[Prediction], profile: str) -> None:
    """Writes the table and the plots, PNG and SVG, into ``folder``, made if absent. No file is seen half written.

    Args:
        profile: the cluster's, for captions.

    Raises:
        UserError: matplotlib is not installed, or the folder cannot be made.
    """
    files = {CSV: csv_text(predictions).encode()}
    for plot in planning_plots(predictions, profile):
        files |= {f"{plot.name}.svg": plot.svg_file.encode(), f"{plot.name}.png": plot.png}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(folder / name, content)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{folder}: the plots cannot be written ({(error.strerror or '').lower()}).") from None


def planning_plots(predictions: Sequence[Prediction], profile: str) -> list[Plot]:
    """Throughput, staleness, effective batch and waiting over the number of workers, a line for each mode."""
    by_mode: dict[str, list[Prediction]] = {}
    for made in predictions:
        by_mode.setdefault(f"{made.mode}, {made.between}" if made.between else made.mode, []).append(made)
    return [_plot(by_mode, profile, *quantity) for quantity in QUANTITIES]


def _plot(
    by_mode: dict[str, list[Prediction]],
    profile: str,
    name: str,
    title: str,
    unit: str,
    logarithmic: bool,
    quantity: Callable[[Prediction], float],
) -> Plot:
    foot = 0.62 + 0.17 * math.ceil(len(by_mode) / 3)
    with drawing(HEIGHT + foot - 0.5) as drawn:
        height = drawn.get_figheight()
        axes = drawn.add_axes((0.62 / WIDTH, foot / height, 1 - 0.75 / WIDTH, 1 - (foot + 0.36) / height))
        said = []
        for number, (mode, made) in enumerate(by_mode.items()):
            values = [quantity(each) for each in made]
            style = look(number)
            axes.plot(
                [each.workers for each in made], values, color=SERIES[style.colour][0], marker=style.marker,
                linestyle=(0, style.dash) if style.dash else "-", label=short_name(mode), clip_on=False,
            )  # fmt: skip
            said.append(f"{mode}: {values[-1]:.4g} with {made[-1].workers:,} workers")
        _axes(axes, logarithmic, unit)
        axes.set_title(title, x=-0.52 / (WIDTH - 0.75))
        _names_below(drawn, axes, (foot - 0.52) / height)
        caption = f"In the simulated cluster of profile {profile}, without gradients; {unit}."
        return finished(drawn, name, title, caption, f"Lines over workers. {'; '.join(said)}.")


def _axes(axes: Axes, logarithmic: bool, unit: str) -> None:
    from matplotlib.ticker import EngFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    elif axes.get_ylim()[1] > 100:
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    if not logarithmic:
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] if axes.dataLim.ymax > 0 else 1)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("workers", labelpad=3)
    axes.set_ylabel(unit, labelpad=4, fontsize=8)


def _names_below(drawn: Figure, axes: Axes, place: float) -> None:
    drawn.legend(
        *axes.get_legend_handles_labels(), loc="upper left", ncols=3, frameon=False, fontsize=8, handlelength=3.2,
        columnspacing=1.2, bbox_to_anchor=(0.04, place), borderaxespad=0,
    )  # fmt: skip
