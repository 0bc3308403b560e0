"""``nmt-async translate``: lines in one language to lines in the other."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.process import fork_server
from nmt_async.progress import progress_for
from nmt_async.translate.options import FILES, PRINTED, TranslateOptions

from .declare import CommonOptions

ARGUMENTS = {
    "models": Annotated[
        list[Path],
        typer.Argument(help="Folder of a run or of a checkpoint; several translate together.", metavar="MODEL"),
    ]
}
OPTIONS = TranslateOptions
EXAMPLE = "nmt-async translate run < test.en > test.de"
GROUPS = (FILES, "Search", PRINTED, "Computing")


def run(options: TranslateOptions, common: CommonOptions, models: list[Path]) -> None:
    """Translate standard input with a trained model: one line out for each line in."""
    if (options.workers or 1) > 1:
        with contextlib.suppress(OSError):  # the first process that cannot be started says so
            fork_server.prepare("nmt_async.translate.files")  # before this process imports as much
    from nmt_async.translate.files import translate_files

    seen = sys.stderr.isatty() and not (options.output is None and sys.stdout.isatty())
    translate_files(options, models, progress_for(common.quiet or not seen))
