"""Marian's vocabularies that are lists of words: ``vocab.yml`` (or ``.json``), and ``.txt`` with a word a line.

As Marian 1.12.42 reads them: each word has an index, text that is split at spaces is looked up, and what is not there
is ``<unk>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from nmt_async.errors import UserError, shown
from nmt_async.reading import read_text
from nmt_async.text.batch import END, UNKNOWN
from nmt_async.text.vocabulary import LIST_END

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
        raise UserError(f"--vocabs: {path} has factors (.fsv); models of them cannot be imported.")
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
            raise ValueError(f"{shown(wrong)} is no word")
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
