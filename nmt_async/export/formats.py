"""``export``: a trained model as a folder that another program loads, and whether it translates the same there."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from nmt_async.decoding.model_folder import LoadedModel, load_model
from nmt_async.decoding.options import DecodingOptions
from nmt_async.decoding.text_file import TextFile
from nmt_async.errors import RunFailure, UserError
from nmt_async.export.agreement import Agreement, compared
from nmt_async.export.ctranslate2 import QUANTIZATIONS
from nmt_async.export.programs import PROGRAMS, require
from nmt_async.options import GIVEN, option
from nmt_async.text.building import built_whole, check_free

FORMATS = ("marian", "ctranslate2", "huggingface")
"""Each is a module of its name, imported where it is wanted: they need libraries that the others do not."""

FORMAT, VERIFICATION = "Format", "Verification"


@dataclass(frozen=True)
class ExportOptions:
    """The options of export.

    Raises:
        UserError: options that do not go together.
    """

    format: str = option(
        "marian", "Whose model it becomes; huggingface takes models of --norm post only, marian alone SSRUs.",
        group=FORMAT, choices=FORMATS,
    )  # fmt: skip
    quantization: str = option(
        "float32", "ctranslate2: type of the weights.", group=FORMAT, choices=QUANTIZATIONS,
        only_with={"format": "ctranslate2"},
    )  # fmt: skip
    verify: Path | None = option(
        None, "Translate this text (plain, gzip or zstd) with the program that will load the folder, and compare. "
        "CTranslate2 scores higher where <unk> was likely: it shares its probability out.",
        group=VERIFICATION, metavar="FILE",
    )  # fmt: skip
    verify_share: float = option(
        0.98, "Share of lines that must be translated the same, else the exit code is 1.", group=VERIFICATION,
        only_with={"verify": GIVEN},
    )  # fmt: skip
    beam_size: int = option(
        1, "Hypotheses of both sides; with more than one, programs differ in when a search ends.",
        group=VERIFICATION, flags=("--beam-size", "-b"), only_with={"verify": GIVEN},
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 1 <= self.beam_size <= 1000:
            raise UserError(f"--beam-size: {self.beam_size} is not from 1 to 1000.")
        if not 0.0 <= self.verify_share <= 1.0:
            raise UserError(f"--verify-share: {self.verify_share:g} is not a share from 0 to 1.")


def export(options: ExportOptions, run: Path, out: Path) -> Agreement | None:
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
    return compared(loaded, lines, theirs, search)


def _write(loaded: LoadedModel, folder: Path, options: ExportOptions) -> None:
    module = importlib.import_module(f"nmt_async.export.{options.format}")
    write = getattr(module, f"export_{options.format}")
    write(loaded, folder, *([options.quantization] if options.format == "ctranslate2" else []))
