"""Cleaned text between reading and encoding: inputs are read once, but the vocabulary must be learnt in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError
from nmt_async.progress import Progress, Step
from nmt_async.text.cleaning import Rules, judge_text, mark_first_occurrences, pair_hash
from nmt_async.text.corpus import Corpus, InputFile, ZstdLines, input_files

CHUNK, CHUNK_CHARACTERS = 2048, 1 << 22
"""Pairs in a list, and characters after which it ends earlier; encoding has one list in memory for each thread."""


@dataclass
class Spool:
    """Sentence pairs that passed the filters on text, in two files.

    Attributes:
        read: pairs in the inputs.
        removed: pairs left out so far, by reason.
        keep: (pairs in the files,), False for those left out since they were written; None when there are none.
    """

    source: Path
    target: Path
    read: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    keep: NDArray[np.bool_] | None = None

    @property
    def kept(self) -> int:
        """Pairs not removed so far."""
        return self.read - self.removed.total()

    def lines(self, *sides: str) -> Iterator[str]:
        """The kept lines of ``source``, of ``target``, or of the one after the other."""
        for side in sides:
            lines = (line.decode() for line in InputFile(getattr(self, side), "spool").lines())
            yield from lines if self.keep is None else compress(lines, self.keep)

    def chunks(self) -> Iterator[tuple[list[str], list[str]]]:
        """The kept pairs, `CHUNK` at a time, fewer where they are long."""
        pairs = zip(self.lines("source"), self.lines("target"), strict=True)
        return _chunks(pairs)


def _chunks(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    sources: list[str] = []
    targets: list[str] = []
    characters = 0
    for source, target in pairs:
        sources.append(source)
        targets.append(target)
        characters += len(source) + len(target)
        if len(sources) == CHUNK or characters >= CHUNK_CHARACTERS:
            yield sources, targets
            sources, targets, characters = [], [], 0
    if sources:
        yield sources, targets


def spool_training(train: Corpus, path: Path, rules: Rules, keep_duplicates: bool, report: Progress) -> Spool:
    """Reads ``train`` through the filters on text into a spool at ``path``.

    Duplicates are found through eight bytes a pair on disk, not in memory.

    Raises:
        UserError: an input cannot be read, or its sides have unequal numbers of lines.
    """
    spool = Spool(path.with_name(path.name + ".source"), path.with_name(path.name + ".target"))
    hash_file = path.with_name(path.name + ".hashes")

    def cleaned(step: Step) -> Iterator[tuple[str, str]]:
        for part in train:
            for source, target in part.pairs():
                spool.read += 1
                if spool.read % CHUNK == 0:
                    step(sum(file.bytes_read for file in input_files(train)), spool.read)
                verdict = judge_text(source, target, rules)
                if isinstance(verdict, str):
                    spool.removed[verdict] += 1
                else:
                    yield verdict
        step(sum(file.bytes_read for file in input_files(train)), spool.read)

    with (
        report.stage("reading", _total_bytes(train)) as step,
        closing(ZstdLines(spool.source)) as source_file,
        closing(ZstdLines(spool.target)) as target_file,
        hash_file.open("wb") as hashes,
    ):
        for sources, targets in _chunks(cleaned(step)):
            source_file.write(sources)
            target_file.write(targets)
            if not keep_duplicates:
                hashes.write(b"".join(map(pair_hash, sources, targets)))
    if not keep_duplicates and spool.kept:
        spool.keep = np.memmap(path.with_name(path.name + ".keep"), np.bool_, mode="w+", shape=(spool.kept,))
        spool.removed["duplicate"] += mark_first_occurrences(np.memmap(hash_file, np.uint64, mode="r"), spool.keep)
    return spool


def spool_validation(valid: Corpus, path: Path, report: Progress) -> Spool:
    """Reads ``valid`` into ``path.source.txt`` and ``path.target.txt``, every line of it.

    Raises:
        UserError: an input cannot be read or is empty, its sides have unequal numbers of lines, or a line is not UTF-8.
    """
    spool = Spool(path.with_name(path.name + ".source.txt"), path.with_name(path.name + ".target.txt"))
    rules = Rules(control_characters=False, empty=False)
    with (
        report.stage("reading the validation text", _total_bytes(valid)) as step,
        spool.source.open("w", encoding="utf-8", newline="\n") as source_file,
        spool.target.open("w", encoding="utf-8", newline="\n") as target_file,
    ):
        for part in valid:
            for number, (source, target) in enumerate(part.pairs(), 1):
                verdict = judge_text(source, target, rules)
                if isinstance(verdict, str):
                    raise UserError(f"{part.where(number)} is not UTF-8, as validation text must be; repair the line.")
                spool.read += 1
                source_file.write(verdict[0] + "\n")
                target_file.write(verdict[1] + "\n")
        step(sum(file.bytes_read for file in input_files(valid)), spool.read)
    if not spool.read:
        raise UserError(f"the validation text is empty ({', '.join(file.name for file in input_files(valid))}).")
    return spool


def _total_bytes(parts: Corpus) -> int | None:
    sizes = [file.size for file in input_files(parts)]
    return None if None in sizes else sum(size for size in sizes if size is not None)
