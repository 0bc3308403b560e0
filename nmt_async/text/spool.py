"""Cleaned text between reading and encoding: inputs are read once, but the vocabulary must be learnt in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError
from nmt_async.progress import Progress, Step
from nmt_async.text.cleaning import Rules, judge_text, mark_first_occurrences, pair_hash
from nmt_async.text.corpora import NamedCorpus, tagged
from nmt_async.text.corpus import InputFile, ZstdLines, input_files

CHUNK, CHUNK_CHARACTERS = 2048, 1 << 22
"""Pairs in a list, and characters after which it ends earlier; encoding has one list in memory for each thread."""


@dataclass
class Tally:
    """What became of one corpus so far.

    Attributes:
        name, tag: as `NamedCorpus` has them.
        read: pairs in its files.
        kept: of them, that were not removed.
        source_tokens, target_tokens: with end marks, once it is encoded.
    """

    name: str
    tag: str
    read: int = 0
    kept: int = 0
    source_tokens: int = 0
    target_tokens: int = 0


@dataclass
class Spool:
    """Sentence pairs that passed the filters on text, in two files, one corpus behind the other.

    Attributes:
        corpora: what became of each.
        read: pairs in the inputs.
        removed: pairs left out so far, by reason.
        keep: (pairs in the files,), False for those left out since they were written; None when there are none.
    """

    source: Path
    target: Path
    corpora: list[Tally]
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


def spool_training(
    corpora: Sequence[NamedCorpus], path: Path, rules: Rules, keep_duplicates: bool, report: Progress
) -> Spool:
    """Reads the training text of the corpora through the filters on text into a spool at ``path``, with their tags.

    Duplicates are found through eight bytes a pair on disk, not in memory; a tag makes a pair another one.

    Raises:
        UserError: an input cannot be read, or its sides have unequal numbers of lines.
    """
    tallies = [Tally(corpus.name, corpus.tag) for corpus in corpora]
    spool = Spool(path.with_name(path.name + ".source"), path.with_name(path.name + ".target"), tallies)
    files = [file for corpus in corpora for file in input_files(corpus.train)]
    hash_file = path.with_name(path.name + ".hashes")

    def cleaned(step: Step) -> Iterator[tuple[str, str]]:
        for corpus, tally in zip(corpora, tallies, strict=True):
            for part in corpus.train:
                for source, target in part.pairs():
                    tally.read += 1
                    spool.read += 1
                    if spool.read % CHUNK == 0:
                        step(sum(file.bytes_read for file in files), spool.read)
                    verdict = judge_text(source, target, rules)
                    if isinstance(verdict, str):
                        spool.removed[verdict] += 1
                    else:
                        tally.kept += 1
                        yield tagged(corpus.tag, verdict[0]), verdict[1]
        step(sum(file.bytes_read for file in files), spool.read)

    with (
        report.stage("reading", _total_bytes(files)) as step,
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
        begin = 0
        for tally in tallies:
            written, tally.kept = tally.kept, int(spool.keep[begin : begin + tally.kept].sum())
            begin += written
    return spool


def spool_validation(corpora: Sequence[NamedCorpus], path: Path, report: Progress) -> Spool:
    """Reads their validation text, every line of it, into ``path.source.txt`` (with tags) and ``path.target.txt``.

    Raises:
        UserError: an input cannot be read or is empty, its sides have unequal numbers of lines, or a line is not UTF-8.
    """
    tallies = [Tally(corpus.name, corpus.tag) for corpus in corpora]
    spool = Spool(path.with_name(path.name + ".source.txt"), path.with_name(path.name + ".target.txt"), tallies)
    files = [file for corpus in corpora for file in input_files(corpus.valid)]
    rules = Rules(control_characters=False, empty=False)
    with (
        report.stage("reading the validation text", _total_bytes(files)) as step,
        spool.source.open("w", encoding="utf-8", newline="\n") as source_file,
        spool.target.open("w", encoding="utf-8", newline="\n") as target_file,
    ):
        for corpus, tally in zip(corpora, tallies, strict=True):
            for part in corpus.valid:
                for number, (source, target) in enumerate(part.pairs(), 1):
                    verdict = judge_text(source, target, rules)
                    if isinstance(verdict, str):
                        raise UserError(
                            f"{part.where(number)} is not UTF-8, as validation text must be; repair the line."
                        )
                    tally.read, tally.kept, spool.read = tally.read + 1, tally.kept + 1, spool.read + 1
                    source_file.write(tagged(corpus.tag, verdict[0]) + "\n")
                    target_file.write(verdict[1] + "\n")
        step(sum(file.bytes_read for file in files), spool.read)
    if not spool.read:
        raise UserError(f"the validation text is empty ({', '.join(file.name for file in files)}).")
    return spool


def _total_bytes(files: Sequence[InputFile]) -> int | None:
    sizes = [file.size for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)
