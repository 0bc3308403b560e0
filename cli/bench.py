"""``nmt-async bench``: how fast a setting trains here, beside the bound and the usual ways."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from nmt_async.bench.options import BOUND, BenchOptions
from nmt_async.formatting import number, percent
from nmt_async.progress import progress_for

from . import bench_decode, bench_prepare
from .declare import CommonOptions, command

if TYPE_CHECKING:
    from nmt_async.bench.throughput import Agreement, Compared, ContenderResult, Measured

ARGUMENTS = {"data": Annotated[Path, typer.Argument(help="The folder that prepare wrote.", metavar="DATA")]}
OPTIONS = BenchOptions
EXAMPLE = "nmt-async bench data --sync-mode hybrid --accumulate 4 --workers 2 --cpu-threads 1"
GROUPS = (
    "Measurement", "Updates", "Devices", "Model", "Optimizer", "Batches", "Who waits", "What crosses", "Staleness",
    "Optimizer constants",
)  # fmt: skip

TRAINING = "training"


class _TrainingUnlessNamed(TyperGroup):
    """``bench DATA`` is ``bench training DATA``: what is measured if nobody says what."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else [TRAINING, *args])


group = typer.Typer(
    cls=_TrainingUnlessNamed,
    help="Measure training (bench DATA), decoding (bench decode MODEL) or preparing (bench prepare) here.",
)


def run(options: BenchOptions, common: CommonOptions, data: Path) -> None:
    """Measure training throughput here, in alternation with plain loops, DDP and other modes."""
    from nmt_async.bench.throughput import measure, with_workers
    from nmt_async.planning.advice import recommendation

    options = with_workers(options, data, partial(typer.echo, err=True))
    with progress_for(common.quiet or not sys.stderr.isatty()).stage("turns", options.turns, "turns") as step:
        measured = measure(options, data, lambda done: step(done, done))
    if options.profile_out is not None and measured.profile is not None:
        measured.profile.save(options.profile_out)
    if options.json:
        typer.echo(json.dumps(_figures(options, measured), indent=2))
        return
    console = Console()
    console.print(_table(measured.results))
    cost = measured.cost_of_simulating()
    if cost is not None:
        console.print(
            "simulated costs {} of processor time and {} of time over gradients".format(
                *(percent(each, 1, signed=True) for each in cost)
            )
        )
    if measured.agreements:
        console.print(_agreement_table(measured.agreements))
    if measured.ways:
        console.print(recommendation(measured.ways, len(options.device_list())), highlight=False, soft_wrap=True)


def _figures(options: BenchOptions, measured: Measured) -> dict[str, Any]:
    figures: dict[str, Any] = {
        result.name: {
            "tokens_per_second": result.rates, "ratios": result.ratios, "tokens_per_cpu_second": result.cpu_rates,
        }
        for result in measured.results
    }  # fmt: skip
    if measured.ways:
        workers = len(options.device_list())
        figures["recommended"] = [
            {"options": each.way.options(workers), "tokens_per_second": each.tokens_per_second,
             "waiting_share": each.waiting_share, "step_share": each.step_share, "sooner": each.sooner}
            for each in measured.ways
        ]  # fmt: skip
    for agreement in measured.agreements:
        for name in ("tokens_per_second", "waiting_share"):
            compared: Compared = getattr(agreement, name)
            figures[agreement.name][f"predicted_{name}"] = compared.predicted
            figures[agreement.name][f"measured_{name}"] = compared.measured
    return figures


def _table(results: list[ContenderResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("contender")
    for title in ("target tokens/s", "lowest", "highest", f"of {BOUND}"):
        table.add_column(title, justify="right")
    for result in results:
        figures = [number(value) for value in (result.rate, min(result.rates), max(result.rates))]
        table.add_row(result.name, *figures, "" if result.ratio is None else number(result.ratio, 3))
    return table


def _agreement_table(agreements: list[Agreement]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title="simulated with the profile of the first one",
        title_justify="left",
    )
    table.add_column("contender", no_wrap=True)
    for title in (
        "tokens/s\npredicted", "\nmeasured", "\nerror", "waiting\npredicted", "\nmeasured", "\npoints", "\nerror",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for agreement in agreements:
        rate, waiting = agreement.tokens_per_second, agreement.waiting_share
        points = 100 * (waiting.predicted - waiting.measured)
        table.add_row(
            agreement.name, number(rate.predicted), number(rate.measured), percent(rate.error, 1, signed=True),
            percent(waiting.predicted, 2), percent(waiting.measured, 2), number(points, 2, signed=True),
            percent(waiting.error, signed=True),
        )  # fmt: skip
    return table


command(group, TRAINING, sys.modules[__name__])
command(group, "decode", bench_decode)
command(group, "prepare", bench_prepare)
