"""``nmt-async bench``: how fast a setting trains here, beside the bound and the usual ways."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nmt_async.bench.throughput import BOUND, BenchOptions, Result, measure
from nmt_async.text.progress import progress_for

from .declare import CommonOptions

ARGUMENTS = {"data": Annotated[Path, typer.Argument(help="The folder that prepare wrote.", metavar="DATA")]}


def run(options: BenchOptions, common: CommonOptions, data: Path) -> None:
    """Measure training throughput here, in alternation with plain loops, DDP and other modes."""
    with progress_for(common.quiet or not sys.stderr.isatty()).stage("turns", options.turns) as step:
        results = measure(options, data, lambda done: step(done, done))
    if options.json:
        figures = {result.name: {"tokens_per_second": result.rates, "ratios": result.ratios} for result in results}
        typer.echo(json.dumps(figures, indent=2))
    else:
        Console().print(_table(results))


def _table(results: list[Result]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("contender")
    for title in ("target tokens/s", "lowest", "highest", f"of {BOUND}"):
        table.add_column(title, justify="right")
    for result in results:
        figures = [f"{value:,.0f}" for value in (result.rate, min(result.rates), max(result.rates))]
        table.add_row(result.name, *figures, "" if result.ratio is None else f"{result.ratio:.3f}")
    return table
