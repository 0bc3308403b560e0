"""``nmt-async replay``: a run's journal replayed on one process, and compared with the run's checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.progress import progress_for
from nmt_async.training.replay import ReplayOptions, replay, verdict

from .declare import CommonOptions

ARGUMENTS = {"folder": Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]}
EXAMPLE = "nmt-async replay run --until 2000"
GROUPS = ("Replay",)


def run(options: ReplayOptions, common: CommonOptions, folder: Path) -> None:
    """Compute a run again from its journal, on one process, and say whether its checkpoint is the same, bit for bit."""
    progress = progress_for(common.quiet or not sys.stderr.isatty())
    print(verdict(folder, replay(folder, options, progress)))
