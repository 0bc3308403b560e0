"""``nmt-async bench prepare``: how fast text is prepared here, beside SentencePiece, and how soon training begins."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nmt_async.bench.options import PREPARE, PrepareBenchOptions
from nmt_async.formatting import number
from nmt_async.progress import progress_for

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.bench.preparation import PrepareTurn

OPTIONS = PrepareBenchOptions
EXAMPLE = "nmt-async bench prepare --pairs 1000000 --rounds 3"


def run(options: PrepareBenchOptions, common: CommonOptions) -> None:
    """Measure how fast generated text is prepared here, in alternation with SentencePiece's own encoder."""
    from nmt_async.bench.preparation import figures, measure_preparation

    with progress_for(common.quiet or not sys.stderr.isatty()).stage("turns", options.turns, "turns") as step:
        turns = measure_preparation(options, lambda done: step(done, done))
    found = figures(turns, options.pairs)
    if options.json:
        typer.echo(json.dumps(found, indent=2))
        return
    Console().print(_table(turns, options.pairs, median(found["ratios"]), median(found["cpu_ratios"])))


def _table(turns: list[PrepareTurn], pairs: int, ratio: float, cpu_ratio: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("contender", no_wrap=True)
    for title in (
        "pairs/s",
        "seconds",
        "CPU\nseconds",
        "MB at\nmost",
        "of the\nencoder",
        "by CPU\ntime",
        "ms a\nbatch",
    ):
        table.add_column(title, justify="right")
    for name in dict.fromkeys(turn.contender for turn in turns):
        own = [turn for turn in turns if turn.contender == name]
        seconds = median(turn.seconds for turn in own)
        each = own[0].batch_seconds
        table.add_row(
            name, number(pairs / seconds) if each is None else "", number(seconds, 1),
            number(median(turn.cpu_seconds for turn in own), 1), number(max(turn.memory for turn in own) / 1e6),
            *((number(ratio, 2), number(cpu_ratio, 2)) if name == PREPARE else ("", "")),
            "" if each is None else number(1000 * each, 2),
        )  # fmt: skip
    return table
