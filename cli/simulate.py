"""``nmt-async simulate``: what modes would cost with so many workers, in virtual time and without gradients."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nmt_async.planning.options import SimulateOptions
from nmt_async.text.progress import progress_for

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.planning.simulation import Prediction

OPTIONS = SimulateOptions
EXAMPLE = "nmt-async simulate --profile uneven --workers 1..64 --modes sync,async,hybrid:W"
GROUPS = ("Cluster", "Batches and model", "Result")


def run(options: SimulateOptions, common: CommonOptions) -> None:
    """Predict throughput, waiting, staleness and effective batch for many workers, without computing gradients."""
    from nmt_async.planning.simulation import predictions
    from nmt_async.report.planning import write_predictions

    modes, counts = options.mode_list(), options.worker_counts()
    with progress_for(common.quiet or not sys.stderr.isatty()).stage("simulations", len(modes) * len(counts)) as step:
        done = 0

        def count(_: Prediction) -> None:
            nonlocal done
            done += 1
            step(done, done)

        made = predictions(
            modes, counts, options.cluster_profile, options.plans(), options.sent(), options.batches, options.seed,
            count,
        )  # fmt: skip
    profile = options.cluster_profile(1).name
    if options.out is not None:
        write_predictions(options.out, made, profile)
    if options.json:
        typer.echo(json.dumps([dataclasses.asdict(each) for each in made], indent=2))
    else:
        Console().print(_table(made, profile))
        if options.out is not None and not common.quiet:
            typer.echo(options.out)


def _table(made: list[Prediction], profile: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, title=f"profile {profile}", title_justify="left")
    table.add_column("mode", no_wrap=True)
    for title in (
        "workers", "tokens/s", "speed-\nup", "waiting", "staleness\nmean", "\nmost", "effective\nbatch", "updates\n/s",
    ):  # fmt: skip
        table.add_column(title, justify="right", no_wrap=True)
    for number, each in enumerate(made):
        table.add_row(
            each.mode if not number or made[number - 1].mode != each.mode else "",
            str(each.workers), short(each.tokens_per_second), f"{each.speedup:.2f}", f"{each.waiting_share:.1%}",
            f"{each.staleness_mean:.2f}", str(each.staleness_max), short(each.effective_batch),
            f"{each.updates_per_second:.3g}",
            end_section=number + 1 == len(made) or made[number + 1].mode != each.mode,
        )  # fmt: skip
    return table


def short(amount: float) -> str:
    """``426.8k`` for 426,800: four digits and a factor of thousands."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= factor:
            return f"{amount / factor:.4g}{letter}"
    return f"{amount:.4g}"
