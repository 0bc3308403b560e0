"""``nmt-async quantize``: a model with its matrices in few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt_async.model.quantization_options import QUANTIZATION, QuantizeOptions

from .declare import CommonOptions

ARGUMENTS = {
    "run": Annotated[Path, typer.Argument(help="A run, or the folder of a checkpoint.", metavar="RUN")],
    "out": Annotated[Path, typer.Argument(help="Folder of the new model.", metavar="OUT")],
}
OPTIONS = QuantizeOptions
EXAMPLE = "nmt-async quantize run small --bits 4"
GROUPS = (QUANTIZATION,)


def run(options: QuantizeOptions, common: CommonOptions, run: Path, out: Path) -> None:
    """Turn a trained model into one of few bits, a quarter to a fifteenth as large, which translates as any other."""
    from nmt_async.checkpoints.quantizing import quantize_model

    made = quantize_model(run, out, options.quantization())
    if not common.quiet:
        typer.echo(
            f"{out} holds {made.values:,} of {made.parameters:,} parameters in {options.bits} bits: {made.after:,} "
            f"bytes instead of {made.before:,} ({made.before / made.after:.1f} times smaller). Their root mean squared "
            f"error is {100 * made.error:.1f} % of their root mean square."
        )
