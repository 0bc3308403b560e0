"""The commands ``export``, a trained model as a folder that another program loads, and ``import``, Marian's as ours."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from nmt_async.checkpoints import LoadedModel, load_model
from nmt_async.errors import RunFailure, UserError
from nmt_async.export.marian import import_marian
from nmt_async.export.marian_vocabularies import check_fit, given_vocabularies
from nmt_async.export.options import QUANTIZING, ExportOptions, ImportOptions
from nmt_async.export.verification import PROGRAMS, Verification, require, verified
from nmt_async.translate import DecodingOptions
from nmt_async.translate.lines import TextFile
from nmt_async.writing import built_whole, check_free


def export(options: ExportOptions, run: Path, out: Path) -> Verification | None:
    """Writes the model of ``run`` into the folder ``out``; how well both sides agree, where that was asked for.

    Raises:
        UserError: there is no such model, the format cannot hold it, ``out`` is in use, or the program to verify
            with is not installed.
        RunFailure: it could not be written, or the program failed.
    """
    lines = None
    if options.verify is not None:
        require(options.format)
        lines = list(TextFile(options.verify, "--verify"))
        if not any(line.strip() for line in lines):
            raise UserError(f"--verify: {options.verify} has no line to translate.")
    check_free(out)
    loaded = load_model(run)
    try:
        with built_whole(out) as folder:
            _write(loaded, folder, options)
    except OSError as error:
        raise RunFailure(f"{out} could not be written ({error.strerror or error}); nothing is left there.") from None
    if lines is None:
        return None
    search = DecodingOptions(beam_size=options.beam_size)
    theirs = PROGRAMS[options.format].translate(out, loaded, lines, search)
    return verified(loaded, lines, theirs, search)


def _write(loaded: LoadedModel, folder: Path, options: ExportOptions) -> None:
    name, _, kind = options.format.partition("-")
    module = importlib.import_module(f"nmt_async.export.{name}")
    more: dict[str, Any] = {"binary": True} if kind else {}
    if options.format in QUANTIZING:
        more["quantization"] = options.quantization
    getattr(module, f"export_{name}")(loaded, folder, **more)


def import_model(options: ImportOptions, model: Path) -> LoadedModel:
    """Writes ``options.out`` from Marian's ``model`` (``.npz`` or ``.bin``) and loads it.

    Raises:
        UserError: options are missing, or the model cannot be imported.
        RunFailure: the folder could not be written.
    """
    if options.vocabs is None or len(options.vocabs) != 2:
        raise UserError("--vocabs SOURCE TARGET is missing: name the vocabularies the model was trained with.")
    if options.out is None:
        raise UserError("--out is missing: name the folder to write.")
    check_free(options.out, "--out: ")
    vocabularies = given_vocabularies(options.vocabs, options.spm)
    for side in vocabularies:
        check_fit(side)
    try:
        with built_whole(options.out) as folder:
            import_marian(model, vocabularies, folder)
    except OSError as error:
        raise RunFailure(
            f"--out: {options.out} could not be written ({error.strerror or error}); nothing is left there."
        ) from None
    return load_model(options.out)
