"""Marian's vocabularies that are lists of words, joined with the SentencePiece models that split their text.

A list is ``vocab.yml`` (or ``.json``), or a ``.txt`` with a word a line. As Marian 1.12.42 reads them: each word has an
index, text that is split at spaces is looked up, and what is not there is ``<unk>``.

Text is split first (``spm_encode``), then Marian looks each piece up in the list, so the indexes are
the list's and the splitting is the model's; in OPUS-MT (Tiedemann & Thottingal 2020) one list serves two models. Here
list and model become one SentencePiece model a language:

    </s>, <unk>, the words of the list       in the list's order; those that this side's model does not know are unused
                                             pieces, which decode, and which no text is split into
    `nmt_async.text.vocabulary.LIST_END`     what makes `Vocabulary` look pieces up as Marian does
    the model's pieces that are in no list   for splitting; as in Marian each is ``<unk>``

A token of the target's language, ``>>fra<<``, stands in the list and in no model, since it is put before text that is
split already. It becomes a user-defined piece with SentencePiece's dummy space, so that ``>>fra<< Hello`` is split
into it and what ``Hello`` is split into.

SentencePiece's BPE merges an unused piece too, after all others, and takes it apart again. Where a piece in use could
be made of one, text would be split otherwise than by the model as it was.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import yaml

from nmt_async.errors import UserError, shown
from nmt_async.reading import open_ordinary, read_text
from nmt_async.text.vocabulary import END, LIST_END, UNKNOWN, Vocabulary

YAML_LISTS, TEXT_LISTS = (".yml", ".yaml", ".json"), (".txt",)
SPECIAL = ("</s>", "<unk>")
"""The first words of a list; Marian takes them anywhere, and here they have these indexes."""
MOST_BYTES = 32 * 2**20
"""Of a list; those of OPUS-MT have some 60,000 words and 1 MB."""
MOST_WORDS = 1_000_000
YAML_BREAKS = "\x85\u2028\u2029"
"""Line breaks of YAML that are none to yaml-cpp, with which Marian reads and writes."""


def is_word_list(path: Path) -> bool:
    """Whether Marian takes a file of this name for a list of words.

    Raises:
        UserError: it takes it for another kind, which cannot be imported.
    """
    if path.suffix == ".fsv":
        raise UserError(f"--vocabs: {path} has factors (.fsv); models with factors cannot be imported.")
    return path.suffix in YAML_LISTS + TEXT_LISTS


def read_words(path: Path) -> list[str]:
    """The words of Marian's list in the order of their indexes: a YAML mapping to them, or one word a line.

    Raises:
        UserError: it cannot be read, is no such list, or has not `SPECIAL` first.
    """
    try:
        text = read_text(path, MOST_BYTES)
        words = _lines(text) if path.suffix in TEXT_LISTS else _in_order(_scalars(text))
        if tuple(words[:2]) != SPECIAL:
            found = [f"{word} {f'at {words.index(word)}' if word in words else 'nowhere'}" for word in SPECIAL]
            raise ValueError(f"it has {' and '.join(found)}, and only </s> at {END} and <unk> at {UNKNOWN} are read")
        wrong = next((word for word in words if not word or "\0" in word or word == LIST_END), None)
        if wrong is not None:
            raise ValueError(f"{shown(wrong)} is not a word")
        if len(set(words)) != len(words):
            raise ValueError("it has a word twice")
        return words
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split())
        raise UserError(f"--vocabs: {path} cannot be read as a list of words ({reason[:300]}).") from None


def _lines(text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if len(lines) > MOST_WORDS:
        raise ValueError(f"it has more than {MOST_WORDS:,} words")
    return lines


def _scalars(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of a YAML mapping as they are written: a word such as ``no`` or ``1.0`` is no number or truth value.

    Only the parser's events are looked at, so nothing is made, nested or repeated.

    Raises:
        ValueError, yaml.YAMLError: it is no such mapping.
    """
    private = (letter for letter in map(chr, range(0xF0000, 0xFFFFE)) if letter not in text)
    there = {ord(letter): next(private, letter) for letter in YAML_BREAKS}
    back = {ord(letter): chr(code) for code, letter in there.items()}
    events = yaml.parse(text.translate(there), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    pending: list[str] = []
    documents, begun = 0, False
    for event in events:
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise ValueError("it is several documents")
        if isinstance(event, yaml.ScalarEvent) and begun:
            pending.append(event.value.translate(back))
            if len(pending) == 2:
                yield pending[0], pending[1]
                pending = []
        elif isinstance(event, yaml.MappingStartEvent) and not begun:
            begun = True
        elif isinstance(event, yaml.NodeEvent):
            where = f"line {event.start_mark.line + 1}" if event.start_mark else "a line"
            raise ValueError(f"{where} is not one word and its index")
    if not begun:
        raise ValueError("it is empty")


def _in_order(pairs: Iterator[tuple[str, str]]) -> list[str]:
    words: dict[int, str] = {}
    for word, index in pairs:
        if not re.fullmatch(r"[0-9]{1,9}", index):
            raise ValueError(f"{shown(word)} has {shown(index)} where an index belongs")
        if int(index) in words:
            raise ValueError(f"{shown(words[int(index)])} and {shown(word)} have the same index {int(index)}")
        words[int(index)] = word
        if len(words) > MOST_WORDS:
            raise ValueError(f"it has more than {MOST_WORDS:,} words")
    missing = next((index for index in range(len(words)) if index not in words), None)
    if missing is not None:
        raise ValueError(f"no word has index {missing}")
    return [words[index] for index in range(len(words))]


MOST_MODEL = 64 * 2**20
"""Bytes of a SentencePiece model; one of 32,000 pieces has 0.8 MB."""
LANGUAGE = re.compile(r">>[^<>\s]+<<")
SPACE = "▁"


@dataclass(frozen=True)
class WordList:
    """A list of words, and the SentencePiece model that splits text before it is looked up there.

    Attributes:
        path: of the list.
        words: in the order of their indexes.
        spm: path of the SentencePiece model.
        pieces: that model, as protobuf holds it.
    """

    path: Path
    words: list[str]
    spm: Path
    pieces: Any

    @property
    def size(self) -> int:
        """How many words it has."""
        return len(self.words)


Given = Vocabulary | WordList
"""A vocabulary of Marian's, of one side."""


def given_vocabularies(vocabs: Sequence[Path], spm: Sequence[Path] | None) -> list[Given]:
    """The vocabularies of source and target.

    Args:
        vocabs: SentencePiece models, or lists of words.
        spm: for each of them the SentencePiece model that splits text; a vocabulary that is one itself, again.

    Raises:
        UserError: something cannot be read, or is missing, or one too many.
    """
    listed = [is_word_list(path) for path in vocabs]
    if not any(listed):
        if spm is not None:
            raise UserError(
                "--spm is for vocabularies that are lists of words; these are SentencePiece models; leave it out."
            )
        return [Vocabulary(path) for path in vocabs]
    if spm is None or len(spm) != len(vocabs):
        raise UserError(
            f"--vocabs: {vocabs[listed.index(True)]} is a list of words; name with --spm SOURCE TARGET the "
            f"SentencePiece models that text is split with (source.spm and target.spm of OPUS-MT)."
        )
    return [_given(*side) for side in zip(vocabs, spm, listed, strict=True)]


def _given(vocab: Path, spm: Path, listed: bool) -> Given:
    if listed:
        return WordList(vocab, read_words(vocab), spm, _read_model(spm))
    if vocab != spm:
        raise UserError(f"--spm: {vocab} is a SentencePiece model itself; give it again in the place of {spm}.")
    return Vocabulary(vocab)


def check_fit(side: Given) -> None:
    """Raises UserError where most subwords of the model are not in the list, which is made of split text."""
    if isinstance(side, Vocabulary):
        return
    normal, words = type(side.pieces).SentencePiece.NORMAL, set(side.words)
    pieces = [piece.piece for piece in side.pieces.pieces if piece.type == normal]
    listed = sum(piece in words for piece in pieces)
    if 2 * listed < len(pieces):
        raise UserError(
            f"--spm: only {listed:,} of the {len(pieces):,} subwords of {side.spm} are in {side.path}; give the model "
            f"that text was split with before it came to Marian."
        )


def _read_model(path: Path) -> Any:
    """The SentencePiece model in a file, as protobuf holds it.

    Raises:
        UserError: there is none, or one that splits otherwise than into subwords.
    """
    try:
        with open_ordinary(path) as file:
            content = file.read(MOST_MODEL + 1)
    except OSError as error:
        raise UserError(f"--spm: {path} cannot be read ({error.strerror}).") from None
    if not _loads(content) or len(content) > MOST_MODEL:
        raise UserError(f"--spm: {path} is not a SentencePiece model.")
    model = _parsed(content)
    if model.trainer_spec.model_type not in (model.trainer_spec.UNIGRAM, model.trainer_spec.BPE):
        raise UserError(f"--spm: {path} is neither a unigram model nor one of BPE; others cannot be imported.")
    return model


def _loads(content: bytes) -> bool:
    try:
        return bool(content) and bool(sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(content))
    except (RuntimeError, ValueError):
        return False


def _parsed(content: bytes) -> Any:
    try:
        kind: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2").ModelProto
    except Exception as error:  # protobuf has an exception of its own for code that was made for a newer version
        raise UserError(f"SentencePiece models cannot be changed ({error}); pip install --upgrade protobuf.") from None
    return kind.FromString(content)


def vocabulary_files(given: Sequence[Given], sizes: Sequence[int], folder: Path) -> list[Path]:
    """Files of the SentencePiece vocabularies of source and target; those made of a list are written into ``folder``.

    Args:
        sizes: of the model's embeddings. A list may be shorter (Marian's ``--dim-vocabs``): the rest has no words.

    Raises:
        UserError: no SentencePiece model can be made of a list and its own.
    """
    # A token is one piece in all vocabularies, or they would not be the same any more.
    known = {piece.piece for side in given if isinstance(side, WordList) for piece in side.pieces.pieces}
    paths = []
    for name, side, size in zip(("source.model", "target.model"), given, sizes, strict=True):
        if isinstance(side, WordList):
            tokens = [word for word in side.words if LANGUAGE.fullmatch(word) and word not in known]
            content = _joined(side, tokens, size)
            if not _loads(content):
                raise UserError(
                    f"{side.path} and {side.spm} make no SentencePiece model together; check that they fit."
                )
            (folder / name).write_bytes(content)
            _check_tokens(Vocabulary(folder / name), side, tokens)
            paths.append(folder / name)
        else:
            paths.append(side.path)
    return paths


def _joined(side: WordList, tokens: Sequence[str], size: int) -> bytes:
    """The SentencePiece model of a side; see the head of this file."""
    kinds = type(side.pieces).SentencePiece
    usable = (kinds.NORMAL, kinds.USER_DEFINED, kinds.BYTE, kinds.UNUSED)
    known = {piece.piece: piece for piece in side.pieces.pieces if piece.type in usable and piece.piece not in SPECIAL}
    lowest = min((piece.score for piece in known.values()), default=0.0) - 1.0
    model = type(side.pieces)()
    for part in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):  # not the model's tests of itself
        if side.pieces.HasField(part):
            getattr(model, part).CopyFrom(getattr(side.pieces, part))

    def add(name: str, kind: int, score: float = 0.0) -> None:
        model.pieces.add(piece=name, score=score, type=kind)

    add(SPECIAL[END], kinds.CONTROL)
    add(SPECIAL[UNKNOWN], kinds.UNKNOWN)
    renamed = set(tokens)
    for word in side.words[2:]:
        if word in known:
            model.pieces.append(known.pop(word))
        elif word in renamed:
            add(SPACE + word, kinds.USER_DEFINED)
        else:
            add(word, kinds.UNUSED, lowest)
    for index in range(side.size, size):
        add(f"<no word {index}>", kinds.CONTROL)
    add(LIST_END, kinds.CONTROL)
    model.pieces.extend(known.values())
    _name_special(model)
    content: bytes = model.SerializeToString()
    return content


def _name_special(model: Any) -> None:
    trainer = model.trainer_spec
    trainer.eos_id, trainer.unk_id, trainer.bos_id, trainer.pad_id = END, UNKNOWN, -1, -1
    trainer.eos_piece, trainer.unk_piece = SPECIAL
    trainer.vocab_size = len(model.pieces)


def _check_tokens(vocabulary: Vocabulary, side: WordList, tokens: Sequence[str]) -> None:
    """Raises UserError unless each token before a text is its index before the text's."""
    text = "A 1"
    behind, indexes = vocabulary.encode(text), {word: index for index, word in enumerate(side.words)}
    for token, ids in zip(tokens, vocabulary.encode_lines([f"{token} {text}" for token in tokens]), strict=True):
        if ids != [indexes[token], *behind]:
            raise UserError(
                f"{side.path} has the token {shown(token)}, and {side.spm} makes something else of it where it "
                f"stands before a text; models like this cannot be imported."
            )


def as_listed(piece: str) -> str:
    """A piece of a vocabulary as the list of words names it: tokens of a language without a space."""
    token = piece.removeprefix(SPACE)
    return token if LANGUAGE.fullmatch(token) else piece


def without_unlisted(path: Path) -> bytes:
    """The vocabulary in a file without the pieces that have no index, as Marian needs it; others as they are.

    A model of unigrams then splits text that had such a piece otherwise, where it was ``<unk>``.

    Raises:
        UserError: it cannot split text without them.
    """
    content = path.read_bytes()
    vocabulary = Vocabulary(path)
    if not vocabulary.looks_up:
        return content
    model = _parsed(content)
    kinds = type(model).SentencePiece
    unlisted = {piece.type for piece in model.pieces[vocabulary.size :]}
    needed = kinds.BYTE in unlisted or (
        kinds.NORMAL in unlisted and model.trainer_spec.model_type == model.trainer_spec.BPE
    )
    if needed:
        raise UserError(
            f"{path} cannot be a vocabulary of Marian's: it splits text by way of pieces for which the model has no "
            f"index (merges of BPE, or bytes)."
        )
    del model.pieces[vocabulary.size :]
    _name_special(model)
    trimmed: bytes = model.SerializeToString()
    return trimmed
