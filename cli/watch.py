"""``nmt-async watch``: a run followed in the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.display.watch import WatchOptions, watch

from .declare import CommonOptions

ARGUMENTS = {
    "folder": Annotated[Path, typer.Argument(help="Folder of a run that goes on or has ended.", metavar="RUN")]
}
OPTIONS = WatchOptions
EXAMPLE = "nmt-async watch run"
GROUPS = ("Watching",)


def run(options: WatchOptions, common: CommonOptions, folder: Path) -> None:
    """Follow a run in the terminal until it ends, from its folder alone; plain lines where there is no terminal."""
    try:
        watch(options, folder, sys.stdout, common.quiet)
    except BrokenPipeError:  # nobody reads any more (`| head`)
        # What is still in the buffer must not be written, and fail, once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
