"""``nmt-async doctor``: looks, before a long run, at what would end it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nmt_async.doctor.finding import Finding
from nmt_async.doctor.options import DoctorOptions

from .declare import CommonOptions

ARGUMENTS = {
    "subject": Annotated[
        Path | None,
        typer.Argument(
            help="The folder that prepare wrote, with the options of the planned run; or a run's folder. "
            "Without it, only the machine is checked.",
            metavar="DATA|RUN",
        ),
    ]
}
OPTIONS = DoctorOptions
EXAMPLE = "nmt-async doctor data --preset base --workers 4"
GROUPS = (
    "Examination", "Run", "Updates", "Devices", "Machines", "Model", "Optimizer", "Batches", "Validation and stopping",
    "Reports and checkpoints", "Who waits", "What crosses", "Staleness", "Optimizer constants",
)  # fmt: skip
STYLES = {"fine": "green", "note": "yellow", "wrong": "bold red"}
CHECK_WIDTH = 24


def run(options: DoctorOptions, common: CommonOptions, subject: Path | None) -> None:
    """Check machine, data, checkpoints and longest batches before a long run; exit code 1 if something is wrong."""
    from nmt_async.doctor.examination import examine

    findings = []
    show = _display(common.quiet, options.json)
    for finding in examine(subject, options, lambda text: None if common.quiet else typer.echo(text, err=True)):
        findings.append(finding)
        show(finding)
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    if options.json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    elif not common.quiet:
        typer.echo(f"{wrong} of {len(findings)} checks found something wrong." if wrong else "Nothing is wrong.")
    if wrong:
        raise typer.Exit(1)


def _display(quiet: bool, as_json: bool) -> Callable[[Finding], None]:
    """Shows each finding as it comes: a row of a table on a terminal, else a line."""
    console = Console()

    def show(finding: Finding) -> None:
        if as_json or (quiet and finding.verdict == "fine"):
            return
        if console.is_terminal:
            console.print(row(finding))
        else:
            typer.echo(line(finding))

    return show


def row(finding: Finding) -> Table:
    """The finding as a terminal shows it, below the one before."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=5, style=STYLES[finding.verdict])
    table.add_column(width=CHECK_WIDTH)
    table.add_column()
    told = Text(finding.found)
    if finding.advice:
        told.append(f"\n{finding.advice}", "bold")
    table.add_row(finding.verdict, finding.check, told)
    return table


def line(finding: Finding) -> str:
    """The finding as one line."""
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.verdict:<5}  {finding.check:<{CHECK_WIDTH}}  {finding.found}{advice}"
