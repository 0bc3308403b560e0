"""``nmt-async import``: a model of Marian's, to translate with and to train further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.export.options import IMPORTED, ImportOptions

from .declare import CommonOptions

ARGUMENTS = {"model": Annotated[Path, typer.Argument(help="Marian's model file (.npz or .bin).", metavar="MODEL")]}
OPTIONS = ImportOptions
EXAMPLE = "nmt-async import model.npz --vocabs source.spm target.spm --out run"
GROUPS = (IMPORTED,)


def run(options: ImportOptions, common: CommonOptions, model: Path) -> None:
    """Turn a Transformer of Marian's into a run that translate, evaluate and train --init-from accept."""
    from nmt_async.export.conversion import import_model

    loaded = import_model(options, model)
    if not common.quiet:
        typer.echo(f"{options.out} holds {model}: {json.dumps(loaded.configuration.as_mapping())}")
