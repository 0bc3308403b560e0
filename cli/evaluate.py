"""``nmt-async evaluate``: BLEU, chrF and TER of a translation, or of a model."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt_async.progress import progress_for
from nmt_async.score.options import EvaluateOptions

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.score.evaluation import Score

ARGUMENTS = {
    "models": Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folder of a run or of a checkpoint, to translate --source; several translate together.", metavar="RUN"
        ),
    ]
}
OPTIONS = EvaluateOptions
EXAMPLE = "nmt-async evaluate run --source test.en --reference reference.de"
GROUPS = ("Scoring", "Search", "Computing")


def run(options: EvaluateOptions, common: CommonOptions, models: list[Path] | None) -> None:
    """Score a translation, or a model's, against a reference: BLEU, chrF and TER with 95 % confidence intervals."""
    from nmt_async.score.evaluation import evaluate

    scores = evaluate(options, models or [], progress_for(common.quiet or not sys.stderr.isatty()))
    if options.json:
        by_name = {score["name"]: score for score in map(dataclasses.asdict, scores)}
        typer.echo(json.dumps(by_name, indent=2))
    else:
        for score in scores:
            typer.echo(_line(score))


def _line(score: Score) -> str:
    interval = "" if score.mean is None else f"  95 %: {score.mean:.2f} ± {score.half_width:.2f}"
    return f"{score.name:4} {score.score:6.2f}{interval}  {score.signature}"
