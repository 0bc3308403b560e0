"""``nmt-async distil``: training data for a student from the translations of teachers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.distillation.options import CHOICE, DATA, DistilOptions
from nmt_async.process import fork_server
from nmt_async.progress import progress_for
from nmt_async.translate.options import FILES

from .declare import CommonOptions

ARGUMENTS = {
    "teachers": Annotated[
        list[Path],
        typer.Argument(help="Folder of a run or of a checkpoint; several translate together.", metavar="TEACHER"),
    ]
}
OPTIONS = DistilOptions
EXAMPLE = "nmt-async distil teacher --source mono.en --out data --best-share 0.9"
GROUPS = (FILES, "Search", CHOICE, DATA, "Computing")


def run(options: DistilOptions, common: CommonOptions, teachers: list[Path]) -> None:
    """Make the data that a small model learns from: a text, as trained models translate it, the worst left out."""
    if (options.workers or 1) > 1:
        with contextlib.suppress(OSError):  # the first process that cannot be started says so
            fork_server.prepare("nmt_async.distillation.teaching")  # before this process imports as much
    from nmt_async.distillation.teaching import distil

    made = distil(options, teachers, progress_for(common.quiet))
    if not common.quiet:
        pairs = made.data.manifest["splits"]["train"]["kept"]
        typer.echo(
            f"{made.data.folder} has {pairs:,} pairs of {made.lines:,} lines: {made.kept:,} were judged with "
            f"{made.lowest:.3f} or more, and cleaning left these. The text is in {made.text}."
        )
