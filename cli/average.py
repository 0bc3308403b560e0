"""``nmt-async average``: one model from several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.checkpoints.run_models import VALIDATION_METRICS, best_models, find_model, last_models
from nmt_async.errors import UserError
from nmt_async.options import GIVEN, NOT_GIVEN, option
from nmt_async.writing import check_free

from .declare import CommonOptions

WHICH = "Which models"
ARGUMENTS = {
    "models": Annotated[
        list[Path],
        typer.Argument(help="A run, with --last or --best; or folders of checkpoints.", metavar="RUN|CHECKPOINT"),
    ]
}
EXAMPLE = "nmt-async average run --last 4 --out averaged"
GROUPS = (WHICH, "Files")


@dataclass(frozen=True)
class AverageOptions:
    """The options of average."""

    last: int | None = option(
        None, "Average so many of the run's newest checkpoints.", group=WHICH, only_with={"best": NOT_GIVEN}
    )
    best: int | None = option(None, "Average so many of the run's best models.", group=WHICH)
    metric: str | None = option(
        None,
        "The score by which --best chooses (default: the --metric of the run).",
        group=WHICH,
        choices=tuple(VALIDATION_METRICS),
        only_with={"best": GIVEN},
    )
    out: Path | None = option(None, "Folder of the new model.", group="Files", metavar="DIR")

    def __post_init__(self) -> None:
        for name in ("last", "best"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name}: {value} is too few; give 1 or more.")


OPTIONS = AverageOptions


def run(options: AverageOptions, common: CommonOptions, models: list[Path]) -> None:
    """Average the parameters of a run's last or best checkpoints, or of given ones, to one model."""
    from nmt_async.checkpoints.averaging import average_models

    if options.out is None:
        raise UserError("average needs --out DIR, a folder for the new model.")
    check_free(options.out, "--out: ")
    folders = _chosen(options, models)
    average_models(folders, options.out)
    if not common.quiet:
        for folder in folders:
            typer.echo(f"averaged {folder}")
        typer.echo(f"{options.out} holds their mean.")


def _chosen(options: AverageOptions, models: list[Path]) -> list[Path]:
    if options.last is None and options.best is None:
        if len(models) == 1:
            raise UserError(
                "for one run, say which checkpoints to average: --last N or --best N; or give several folders."
            )
        return [find_model(model) for model in models]
    if len(models) != 1:
        raise UserError("--last and --best choose from one run; give one, or folders without them.")
    if options.last is not None:
        return last_models(models[0], options.last)
    return best_models(models[0], options.best or 1, options.metric)
