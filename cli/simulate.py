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

from nmt_async.formatting import number, percent, short_count
from nmt_async.planning.options import SimulateOptions
from nmt_async.progress import progress_for

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.planning.simulation import Prediction

OPTIONS = SimulateOptions
EXAMPLE = "nmt-async simulate --profile uneven --workers 1..64 --modes sync,async,hybrid:W"
GROUPS = ("Cluster", "Machines", "Batches and model", "Result")


def run(options: SimulateOptions, common: CommonOptions) -> None:
    """Predict throughput, waiting, staleness and effective batch for many workers, without computing gradients."""
    from nmt_async.planning.simulation import predictions
    from nmt_async.report.predictions import write_predictions

    modes, counts = options.mode_list(), options.worker_counts()
    machines, ways = options.machine_counts(), options.ways()
    with progress_for(common.quiet or not sys.stderr.isatty()).stage(
        "simulations", len(modes) * max(1, len(ways)) * len(counts) * len(machines), "simulations"
    ) as step:
        done = 0

        def count(_: Prediction) -> None:
            nonlocal done
            done += 1
            step(done, done)

        made = predictions(
            modes, counts, options.cluster_profile, options.plans(), options.sent(), options.batches, options.seed,
            count, machines, ways, options.outer(),
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
    shared = any(each.machines > 1 for each in made)
    table.add_column("mode", no_wrap=True)
    titles = ["tokens/s", "speed-\nup", "waiting", "staleness\nmean", "\nmost", "effective\nbatch", "updates\n/s"]
    for title in ("ma-\nchines" if shared else "workers", *titles):
        table.add_column(title, justify="right", no_wrap=True)
    for place, each in enumerate(made):
        name, before = label(each), label(made[place - 1]) if place else ""
        table.add_row(
            name if name != before else "", str(each.machines if shared else each.workers),
            short_count(each.tokens_per_second), number(each.speedup, 2 if each.speedup < 100 else 0),
            percent(each.waiting_share, 1), number(each.staleness_mean, 2), number(each.staleness_max),
            short_count(each.effective_batch),
            f"{each.updates_per_second:.3g}",
            end_section=place + 1 == len(made) or label(made[place + 1]) != name,
        )  # fmt: skip
    return table


def label(made: Prediction) -> str:
    """``hybrid:W, lagged``."""
    return f"{made.mode}, {made.between}" if made.between else made.mode
