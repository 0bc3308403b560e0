"""``nmt-async bench decode``: how fast a model translates here, beside CTranslate2."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nmt_async.bench.options import YARDSTICK, DecodeBenchOptions
from nmt_async.formatting import number, percent
from nmt_async.progress import progress_for

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.bench.decoding import DecodeResult

ARGUMENTS = {"model": Annotated[Path, typer.Argument(help="Folder of a run or of a checkpoint.", metavar="MODEL")]}
OPTIONS = DecodeBenchOptions
EXAMPLE = "nmt-async bench decode run --input test.en --beam-size 5 --threads 1"


def run(options: DecodeBenchOptions, common: CommonOptions, model: Path) -> None:
    """Measure how fast a model translates here, in alternation with CTranslate2."""
    from nmt_async.bench.decoding import measure_decoding

    with progress_for(common.quiet or not sys.stderr.isatty()).stage("turns", None, "turns") as step:
        measured = measure_decoding(options, model, lambda done, _: step(done, done))
    for note in measured.notes:
        print(f"nmt-async: {note}", file=sys.stderr)
    if options.json:
        figures = [
            dataclasses.asdict(result) | {"rate": result.rate, "ratio": result.ratio, "cpu_ratio": result.cpu_ratio}
            for result in measured.results
        ]
        typer.echo(json.dumps(figures, indent=2))
        return
    Console().print(_table(measured.results))


def _table(results: list[DecodeResult]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("engine", no_wrap=True)
    for title in (
        "beam", "threads", "lines/s", "lowest", "highest", "subw.\n/s", f"of\n{YARDSTICK}", "by CPU\ntime",
        "same\nlines",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for result in results:
        figures = [number(value, 1) for value in (result.rate, min(result.rates), max(result.rates))]
        tokens = sorted(result.token_rates)[len(result.token_rates) // 2]
        table.add_row(
            result.engine, str(result.beam_size), str(result.threads), *figures, number(tokens),
            "" if result.ratio is None else number(result.ratio, 3),
            "" if result.cpu_ratio is None else number(result.cpu_ratio, 3),
            "" if result.same is None else percent(result.same, 1),
        )  # fmt: skip
    return table
