"""The options of the commands export and import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.options import GIVEN, option

FORMATS = ("marian", "marian-bin", "ctranslate2", "huggingface")
"""Each is a module of its name (up to a hyphen), imported where it is wanted: they need libraries that others don't."""

QUANTIZING = ("marian-bin", "ctranslate2")
"""Those that hold weights of fewer bits."""

QUANTIZATIONS = ("float32", "int8")
"""Types of the weights in the folders of `QUANTIZING`."""

FORMAT, VERIFICATION, IMPORTED = "Format", "Verification", "Model"


@dataclass(frozen=True)
class ExportOptions:
    """The options of export.

    Raises:
        UserError: options that do not go together.
    """

    format: str = option(
        "marian", "The program that will load the model. huggingface takes only models with --norm post, and "
        "only marian takes SSRUs and models with --norm none. marian-bin is marian with model.bin in the place of "
        "model.npz. Without --quantization, what a quantised model computes with is written as numbers of full size.",
        group=FORMAT, choices=FORMATS,
    )  # fmt: skip
    quantization: str = option(
        "float32", "ctranslate2 and marian-bin: type of the weights. With int8, Marian translates on CPUs only, and "
        "--dim-emb and --dim-ffn must be multiples of 64.",
        group=FORMAT, choices=QUANTIZATIONS, only_with={"format": QUANTIZING},
    )  # fmt: skip
    verify: Path | None = option(
        None, "Translate this text (plain, gzip or zstd) with the program that will load the folder, and "
        "compare. CTranslate2 scores higher where <unk> was likely, because it shares that "
        "probability among the others.",
        group=VERIFICATION, metavar="FILE",
    )  # fmt: skip
    verify_share: float = option(
        0.98, "Share of lines that must be translated the same, else the exit code is 1.", group=VERIFICATION,
        only_with={"verify": GIVEN},
    )  # fmt: skip
    beam_size: int = option(
        1, "Beam size of both programs; with more than 1, they differ in when a search ends.",
        group=VERIFICATION, flags=("--beam-size", "-b"), only_with={"verify": GIVEN},
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 1 <= self.beam_size <= 1000:
            raise UserError(f"--beam-size: {self.beam_size} is not from 1 to 1000.")
        if not 0.0 <= self.verify_share <= 1.0:
            raise UserError(f"--verify-share: {self.verify_share:g} is not a share from 0 to 1.")


@dataclass(frozen=True)
class ImportOptions:
    """The options of import."""

    vocabs: tuple[Path, Path] | None = option(
        None, "The vocabularies of source and target (twice the same where they share one): SentencePiece models, or "
        "lists of words (.yml, .json, .txt).",
        group=IMPORTED, flags=("--vocabs", "-v"), metavar="SOURCE TARGET",
    )  # fmt: skip
    spm: tuple[Path, Path] | None = option(
        None, "With lists of words: the SentencePiece models that split source and target. Where a "
        "vocabulary is such a model itself, give it again here.",
        group=IMPORTED, metavar="SOURCE TARGET",
    )  # fmt: skip
    out: Path | None = option(None, "Folder to write; it appears when it is complete.", group=IMPORTED, metavar="RUN")
