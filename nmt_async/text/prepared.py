"""The folder that ``prepare`` writes and training reads: vocabularies, token stores and a manifest.

``vocabulary.model`` (joint) or ``source.model`` and ``target.model``; ``train.source.tokens`` and ``.offsets``, the
same for ``train.target`` and ``valid``; ``valid.source.txt`` and ``valid.target.txt``, the validation text as given,
for scores on text; ``corpora.json``, where several were declared: which pairs are of which (`corpora`);
``manifest.json``: options, inputs, counts, and the size and SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from nmt_async.checksums import sha256_of
from nmt_async.errors import UserError, shown
from nmt_async.options import LONGEST_NAME
from nmt_async.reading import as_dataclass, read_object
from nmt_async.text.corpora import PreparedCorpora
from nmt_async.text.token_store import TokenStore, store_files
from nmt_async.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from nmt_async.text.batch import Batch

FORMAT = 1
"""Version of the folder's layout, in its manifest."""

MANIFEST = "manifest.json"
CORPORA = "corpora.json"
MODELS = JOINT_MODEL, SOURCE_MODEL, TARGET_MODEL = "vocabulary.model", "source.model", "target.model"


class ParallelStore:
    """Sentence pairs: sentence i of ``source`` and of ``target`` belong together.

    Raises:
        UserError: a file is missing or damaged, or the sides have unequal numbers of sentences.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.source = TokenStore(folder / f"{split}.source")
        self.target = TokenStore(folder / f"{split}.target")
        if len(self.source) != len(self.target):
            raise UserError(
                f"{folder}: {split}.source has {len(self.source):,} sentences but {split}.target "
                f"{len(self.target):,}; run prepare again."
            )

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indexes: np.ndarray | Sequence[int]) -> Batch:
        """The pairs at these indexes as one padded batch, in the order given."""
        from torch import from_numpy  # which prepare has no use for

        from nmt_async.text.batch import Batch

        rows = np.asarray(indexes)
        return Batch(*map(from_numpy, (*self.source.padded(rows), *self.target.padded(rows))))

    def files(self) -> list[Path]:
        """Those of both sides."""
        return [*store_files(self.source.path), *store_files(self.target.path)]

    def fetch(self, rows: np.ndarray) -> None:
        """Of both sides: `TokenStore.fetch`."""
        self.source.fetch(rows)
        self.target.fetch(rows)

    def batches(self, parts: Iterable[np.ndarray]) -> list[Batch]:
        """A batch for each part."""
        return [self.batch(part) for part in parts]


class PreparedData:
    """A prepared folder, open. Get one by `open`.

    Attributes:
        folder: where it lies.
        manifest: what ``manifest.json`` says.
        source_vocabulary, target_vocabulary: the same object when joint.
        train: the training pairs.
        valid: the validation pairs, None when there are none.
        corpora: of which the training pairs are, None where the text is not divided.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.joint: bool = JOINT_MODEL in manifest["files"]
        self.source_vocabulary = Vocabulary(folder / (JOINT_MODEL if self.joint else SOURCE_MODEL))
        self.target_vocabulary = self.source_vocabulary if self.joint else Vocabulary(folder / TARGET_MODEL)
        self.train = self._store("train")
        self.valid = self._store("valid") if manifest["splits"].get("valid") else None
        self.corpora = self._corpora() if CORPORA in manifest["files"] else None

    def _store(self, split: str) -> ParallelStore:
        store, said = ParallelStore(self.folder, split), self.manifest["splits"][split]
        there = len(store), store.source.tokens, store.target.tokens
        expected = said["kept"], said["source"]["tokens"], said["target"]["tokens"]
        if there != expected:
            counts = ["{:,} pairs of {:,} and {:,} tokens".format(*each) for each in (there, expected)]
            raise UserError(
                f"{self.folder}: {split} has {counts[0]} where {MANIFEST} says {counts[1]}; run prepare again."
            )
        return store

    def _corpora(self) -> PreparedCorpora:
        path = self.folder / CORPORA
        try:
            return PreparedCorpora.from_mapping(read_object(path), len(self.train))
        except (OSError, ValueError, TypeError, UserError) as error:
            raise UserError(f"{path} is damaged ({shown(str(error))}); run prepare again.") from None

    @classmethod
    def open(cls, folder: Path, whole: bool = False) -> PreparedData:
        """The data in ``folder``, its files compared with the manifest by size, the vocabularies by SHA-256.

        Args:
            whole: all files by SHA-256, for which all are read.

        Raises:
            UserError: it is not a prepared folder, is incomplete, of another format version, or a file does not match.
        """
        manifest = read_manifest(folder)
        for name, described in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                raise UserError(f"{folder} is incomplete: {name} is missing; run prepare again.")
            size, expected = path.stat().st_size, described["bytes"]
            if size != expected:
                raise UserError(
                    f"{path} has {size:,} bytes where {MANIFEST} says {expected:,}; run prepare again."
                )  # fmt: skip
            # A damaged one may still be a model, of other subwords.
            if (whole or name in MODELS) and sha256_of(path) != described["sha256"]:
                raise UserError(f"{path} is damaged: {MANIFEST} has another SHA-256; run prepare again.")
        return cls(folder, manifest)

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal digits: another whenever a vocabulary or a token is another, and only then.

        Where corpora were declared, also whenever a name, a tag, a size or a weight is another.
        """
        return fingerprint(self.manifest["files"])

    def valid_lines(self) -> tuple[list[str], list[str]]:
        """The validation source and reference as given, line by line; two empty lists when there are none.

        Raises:
            UserError: they cannot be read, or are not as many as the validation pairs.
        """
        return self._valid_side("source"), self._valid_side("target")

    def _valid_side(self, side: str) -> list[str]:
        if self.valid is None:
            return []
        path = self.folder / f"valid.{side}.txt"
        try:
            lines = path.read_bytes().decode().split("\n")[:-1]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); run prepare again.") from None
        if len(lines) != len(self.valid):
            raise UserError(
                f"{path} has {len(lines):,} lines for {len(self.valid):,} validation pairs; run prepare again."
            )
        return lines


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of ``folder`` says.

    Raises:
        UserError: ``folder`` is not a prepared folder, or one of another format version.
    """
    if not folder.exists():
        raise UserError(f"there is no folder {folder}; nmt-async prepare --out {folder} makes it.")
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is not a folder that nmt-async prepare made: it has no {MANIFEST}.")
    try:
        values = read_object(path)
        version = values.get("format")
        if isinstance(version, int) and version != FORMAT:
            raise UserError(f"{folder} has format {shown(version)}, this version reads {FORMAT}; run prepare again.")
        described = as_dataclass(_Manifest, values, others=True)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or not from nmt-async prepare ({error}); run prepare again.") from None
    for name in described.files:
        if PurePath(name).name != name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
            raise UserError(f"{path} names {shown(name)}, which is not in the folder; run prepare again.")
    return values


@dataclass(frozen=True)
class _File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Side:
    tokens: int
    unknown: int


@dataclass(frozen=True)
class _Split:
    read: int
    kept: int
    source: _Side
    target: _Side
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Splits:
    train: _Split
    valid: _Split | None = None


@dataclass(frozen=True)
class _Sizes:
    source: int
    target: int
    joint: bool


@dataclass(frozen=True)
class _Input:
    option: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What a manifest holds at least."""

    options: Mapping[str, Any]
    format: int
    inputs: tuple[_Input, ...]
    vocabulary: _Sizes
    splits: _Splits
    files: Mapping[str, _File]


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """The size and SHA-256 of each file in ``folder``, as its manifest gives them."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())}


def fingerprint(files: Mapping[str, Mapping[str, Any]]) -> str:
    """See `PreparedData.fingerprint`."""
    names = [*MODELS]
    names += [file.name for split in ("train", "valid") for side in ("source", "target")
              for file in store_files(Path(f"{split}.{side}"))]  # fmt: skip
    names.append(CORPORA)  # no folder of text that is not divided has it
    text = "".join(f"{name} {files[name]['sha256']}\n" for name in names if name in files)
    return hashlib.sha256(text.encode()).hexdigest()
