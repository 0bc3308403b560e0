"""``nmt-async export``: a trained model in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt_async.errors import RunFailure
from nmt_async.export.options import FORMAT, VERIFICATION, ExportOptions

from .declare import CommonOptions

ARGUMENTS = {
    "run_folder": Annotated[Path, typer.Argument(help="Folder of a run or of a checkpoint.", metavar="RUN")],
    "out": Annotated[Path, typer.Argument(help="Folder to write; it appears when it is complete.", metavar="DIR")],
}
OPTIONS = ExportOptions
EXAMPLE = "nmt-async export --format marian run model --verify test.en"
GROUPS = (FORMAT, VERIFICATION)


def run(options: ExportOptions, common: CommonOptions, run_folder: Path, out: Path) -> None:
    """Write a model for Marian, CTranslate2 or Hugging Face's MarianMTModel, and check that it translates the same."""
    from nmt_async.export.conversion import export

    agreement = export(options, run_folder, out)
    if agreement is None:
        if not common.quiet:
            typer.echo(f"{out} holds the model for {options.format}.")
        return
    typer.echo(
        f"{agreement.identical:,} of {agreement.lines:,} lines are identical ({agreement.share:.2%}); "
        f"largest score difference between them: {agreement.score_difference:.6f}"
    )
    if agreement.share < options.verify_share:
        raise RunFailure(
            f"{options.format} translates {agreement.share:.2%} of the lines as we do, less than --verify-share "
            f"{options.verify_share:g}; {out} is kept."
        )
