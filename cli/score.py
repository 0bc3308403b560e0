"""``nmt-async score``: how probable given translations are to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.progress import progress_for
from nmt_async.score.options import ScoreOptions

from .declare import CommonOptions

ARGUMENTS = {
    "models": Annotated[
        list[Path], typer.Argument(help="Folder of a run or of a checkpoint; several score together.", metavar="MODEL")
    ]
}
OPTIONS = ScoreOptions
EXAMPLE = "nmt-async score run --source test.en --target test.de"
GROUPS = ("Files", "Scores", "N-best lists", "Filtering", "Computing")


def run(options: ScoreOptions, common: CommonOptions, models: list[Path]) -> None:
    """Score translations, an n-best list or a corpus with a trained model: log-probabilities, in nats."""
    from nmt_async.score.files import score_files

    quiet = common.quiet or not sys.stderr.isatty() or (options.output is None and sys.stdout.isatty())
    score_files(options, models, progress_for(quiet))
