"""``import``: a model of Marian's as a model folder, to translate with and to train further."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import RunFailure, UserError
from nmt_async.export.listed_vocabularies import check_fit, given_vocabularies
from nmt_async.export.marian import import_marian
from nmt_async.options import option
from nmt_async.writing import built_whole, check_free

GROUP = "Model"


@dataclass(frozen=True)
class ImportOptions:
    """The options of import."""

    vocabs: tuple[Path, Path] | None = option(
        None, "The vocabularies of source and target (twice the same where they share one): SentencePiece models, or "
        "lists of words (.yml, .json, .txt).",
        group=GROUP, flags=("--vocabs", "-v"), metavar="SOURCE TARGET",
    )  # fmt: skip
    spm: tuple[Path, Path] | None = option(
        None, "With lists of words: the SentencePiece models that source and target are split with "
        "(a vocabulary that is one is given again).",
        group=GROUP, metavar="SOURCE TARGET",
    )  # fmt: skip
    out: Path | None = option(None, "Folder to write; it appears when it is complete.", group=GROUP, metavar="RUN")


def import_model(options: ImportOptions, model: Path) -> LoadedModel:
    """Writes ``options.out`` from Marian's ``model`` (``.npz``) and loads it.

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
