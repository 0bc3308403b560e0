"""Models as OPUS-MT has them: Marian reads text that SentencePiece has split, and looks its pieces up in a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece
import yaml
from exported import marian

from nmt_async.checkpoints.model_folder import LoadedModel
from nmt_async.export.conversion import import_model
from nmt_async.export.options import ImportOptions
from nmt_async.export.verification import NOTHING, Translated, by_marian
from nmt_async.text.vocabulary import END, UNKNOWN
from nmt_async.translate.options import DecodingOptions

TRAINED_ON = 150
"""Lines, of the 300 that the pieces are learnt from: some pieces are in no list."""
GREEDY = DecodingOptions(beam_size=1)
TOKENS = (">>deu<<", ">>nds<<")
OPUS = {
    "type": "transformer", "dim-emb": 32, "transformer-heads": 2, "transformer-dim-ffn": 48, "enc-depth": 2,
    "dec-depth": 1, "transformer-postprocess-emb": "d", "transformer-postprocess": "dan", "transformer-preprocess": "",
    "transformer-ffn-activation": "swish", "transformer-dropout": 0.1, "label-smoothing": 0.1, "mini-batch": 32,
    "after-batches": 120, "learn-rate": 0.01, "seed": 1,
}  # fmt: skip


def learnt(lines: list[str], size: int, out: Path, **options) -> Path:
    """A model as spm_train makes it when nothing is said of its special pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(out), vocab_size=size, minloglevel=3, **options
    )
    return out.with_name(out.name + ".model")


def split(model: Path, line: str) -> list[str]:
    """As spm_encode splits it, behind the token with which it begins."""
    token, _, text = line.partition(" ") if line.startswith(">>") else ("", "", line)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model)).encode(text, out_type=str)
    return [token, *pieces] if token else pieces


def looked_up(words: list[str], pieces: list[str]) -> list[int]:
    """As Marian does it."""
    indexes = {word: index for index, word in enumerate(words)}
    return [*(indexes.get(piece, UNKNOWN) for piece in pieces), END]


def with_token(lines: list[str]) -> list[str]:
    return [f"{TOKENS[number % 2]} {line}" if line.strip() else line for number, line in enumerate(lines)]


def train(folder: Path, sides: tuple[list[str], list[str]], spm: tuple[Path, Path], lists, **options: Any) -> None:
    """Trains ``folder/model.npz`` with Marian, which makes the lists, on text that is split already."""
    for name, lines, model in zip(("source", "target"), sides, spm, strict=True):
        (folder / name).write_text("".join(f"{' '.join(split(model, line))}\n" for line in lines[:TRAINED_ON]))
    values = {**OPUS, **options}
    typed = [word for name, value in values.items() for word in (f"--{name}", *([] if value is True else [value]))]
    marian(
        "train", "--model", folder / "model.npz", "--train-sets", folder / "source", folder / "target",
        "--vocabs", *(folder / name for name in lists), *typed,
    )  # fmt: skip


def imported(folder: Path, spm: tuple[Path, Path], out: Path, lists=("vocab.yml", "vocab.yml")) -> LoadedModel:
    vocabs = folder / lists[0], folder / lists[1]
    return import_model(ImportOptions(vocabs=vocabs, spm=spm, out=out), folder / "model.npz")


def by_hand(folder: Path, spm: tuple[Path, Path], lines: list[str], place: Path, name="vocab.yml") -> list[Translated]:
    """Split, translated by Marian, and joined again."""
    (place / "decoder.yml").write_text(
        yaml.safe_dump({"models": [str(folder / "model.npz")], "vocabs": [str(folder / name)] * 2})
    )
    found = by_marian(place, None, [" ".join(split(spm[0], line)) for line in lines], GREEDY)
    join = sentencepiece.SentencePieceProcessor(model_file=str(spm[1])).decode
    return [each if each is NOTHING else Translated(join(each.text.split(" ")), each.score) for each in found]
