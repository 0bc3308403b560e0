"""``nmt-async report``: a run as a page with its plots."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.options import option

from .declare import CommonOptions

ARGUMENTS = {"run": Annotated[Path, typer.Argument(help="The folder of a run, finished or not.", metavar="RUN")]}
EXAMPLE = "nmt-async report run"
GROUPS = ("Report",)


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Where the report goes."""

    out: Path | None = option(
        None, "Write report.html, report.md, results.csv and plots/ here (default: RUN/report).", group="Report",
        metavar="DIR",
    )  # fmt: skip


OPTIONS = ReportOptions


def run(options: ReportOptions, common: CommonOptions, run: Path) -> None:
    """Write a run's figures as one page that needs no network, with its plots and a table for spreadsheets."""
    from nmt_async.report.one_run import words_of
    from nmt_async.report.page import write_report
    from nmt_async.study.collect import collect

    result = collect(run)
    typed = ["nmt-async", "report", str(run), *(["--out", str(options.out)] if options.out else [])]
    page = write_report(
        options.out or run / "report", words_of(result, run.resolve().name, shlex.join(typed)), [result]
    )
    if not common.quiet:
        typer.echo(page)
