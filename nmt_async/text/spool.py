"""Cleaned text between reading and encoding: inputs are read once, but the vocabulary must be learnt in between.

Text is read, kept and encoded in blocks of many lines, and a block is worked on in one of several threads. Most of what
is done with a block (in zlib, zstd, numpy and SentencePiece) is done outside Python's lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.text.cleaning import Reason, Rules, clean, mark_first_occurrences, pair_hashes
from nmt_async.text.corpora import NamedCorpus, tagged
from nmt_async.text.corpus import AlignedFiles, InputFile, TabSeparated, input_files
from nmt_async.text.line_blocks import PairBlock, kept_lines, lines_of

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """What ``work`` makes of each item, in their order; few items and results are in memory at once."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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


@dataclass(frozen=True)
class StoredBlock:
    """A block of pairs in a spool.

    Attributes:
        source, target: its lines, compressed.
        keep: (pairs,), False for those left out since; None when there are none.
        pairs: those left out among them.
    """

    source: bytes
    target: bytes
    pairs: int
    keep: NDArray[np.bool_] | None = None

    @property
    def kept(self) -> int:
        """Pairs not left out."""
        return self.pairs if self.keep is None else int(self.keep.sum())

    def side(self, name: str) -> bytes:
        """The lines of ``source`` or of ``target`` that are not left out."""
        text = zstandard.ZstdDecompressor().decompress(getattr(self, name))
        return text if self.keep is None else kept_lines(text, self.keep)


def store_block(block: PairBlock) -> StoredBlock:
    """The block, compressed at zstd's fastest ordinary level, to a third."""
    compressor = zstandard.ZstdCompressor(level=1)
    return StoredBlock(compressor.compress(block.source), compressor.compress(block.target), block.pairs)


class Spool:
    """Sentence pairs that passed the filters on text, in a file, one corpus behind the other.

    Attributes:
        path: the file.
        corpora: what became of each.
        read: pairs in the inputs.
        removed: pairs left out so far, by reason.
        keep: (pairs in the file,), False for those left out since they were written; None when there are none.
    """

    def __init__(self, path: Path, corpora: list[Tally]) -> None:
        self.path = path
        self.corpora = corpora
        self.read = 0
        self.removed: Counter[str] = Counter()
        self.keep: NDArray[np.bool_] | None = None
        self._sizes: list[tuple[int, int, int]] = []  # of each block: bytes of either side, and pairs

    @property
    def kept(self) -> int:
        """Pairs not removed so far."""
        return self.read - self.removed.total()

    def append(self, block: StoredBlock, file: BinaryIO) -> None:
        """Writes another block to ``file``, which is open at the end of `path`."""
        if block.pairs:
            file.write(block.source)
            file.write(block.target)
            self._sizes.append((len(block.source), len(block.target), block.pairs))

    def blocks(self) -> Iterator[StoredBlock]:
        """All of them, in their order."""
        begin = 0
        with self.path.open("rb") as file:
            for source, target, pairs in self._sizes:
                keep = None if self.keep is None else np.asarray(self.keep[begin : begin + pairs])
                yield StoredBlock(file.read(source), file.read(target), pairs, keep)
                begin += pairs

    def sample(self, sides: Sequence[str], rows: NDArray[np.int64] | None) -> Iterator[bytes]:
        """Kept lines of ``source``, of ``target``, or of the one after the other: those in ``rows``, which rise.

        Args:
            rows: counted over all sides, from 0; None: all lines.
        """
        begin = 0
        for side in sides:
            for block in self.blocks():
                end = begin + block.kept
                if rows is None:
                    yield from lines_of(block.side(side))
                else:
                    wanted = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)] - begin
                    if len(wanted):
                        lines = lines_of(block.side(side))
                        yield from (lines[row] for row in wanted.tolist())
                begin = end


@dataclass(frozen=True)
class _Read:
    """A block as it was read, and of which corpus."""

    number: int
    block: PairBlock


@dataclass(frozen=True)
class _Cleaned:
    number: int
    read: int
    removed: Counter[Reason]
    stored: StoredBlock
    hashes: NDArray[np.uint64] | None


def spool_training(
    corpora: Sequence[NamedCorpus], path: Path, rules: Rules, keep_duplicates: bool, threads: int, report: Progress
) -> Spool:
    """Reads the training text of the corpora through the filters on text into a spool at ``path``, with their tags.

    Duplicates are found through eight bytes a pair on disk, not in memory; a tag makes a pair another one.

    Raises:
        UserError: an input cannot be read, or its sides have unequal numbers of lines.
    """
    tallies = [Tally(corpus.name, corpus.tag) for corpus in corpora]
    spool = Spool(path, tallies)
    files = [file for corpus in corpora for file in input_files(corpus.train)]
    hash_file = path.with_name(path.name + ".hashes")

    def cleaned(read: _Read) -> _Cleaned:
        block, removed = clean(read.block, rules)
        block = _tagged(block, tallies[read.number].tag)
        hashes = None if keep_duplicates or not block.pairs else pair_hashes(block)
        return _Cleaned(read.number, read.block.pairs, removed, store_block(block), hashes)

    parts = [(number, part) for number, corpus in enumerate(corpora) for part in corpus.train]
    blocks = (_Read(number, block) for number, part in parts for block in part.blocks())
    with (
        report.stage("reading", _total_bytes(files)) as step,
        path.open("wb") as file,
        hash_file.open("wb") as hashes,
    ):
        for made in in_threads(cleaned, blocks, threads):
            tally = tallies[made.number]
            tally.read += made.read
            tally.kept += made.stored.pairs
            spool.read += made.read
            spool.removed.update(made.removed)
            spool.append(made.stored, file)
            if made.hashes is not None:
                hashes.write(made.hashes.data)
            step(sum(file.bytes_read for file in files), spool.read)
    if not keep_duplicates and spool.kept:
        spool.keep = np.memmap(path.with_name(path.name + ".keep"), np.bool_, mode="w+", shape=(spool.kept,))
        spool.removed["duplicate"] += mark_first_occurrences(np.memmap(hash_file, np.uint64, mode="r"), spool.keep)
        begin = 0
        for tally in tallies:
            written, tally.kept = tally.kept, int(spool.keep[begin : begin + tally.kept].sum())
            begin += written
    return spool


def _tagged(block: PairBlock, tag: str) -> PairBlock:
    if not tag:
        return block
    lines = (tagged(tag, line.decode()) for line in lines_of(block.source))
    return PairBlock("".join(f"{line}\n" for line in lines).encode(), block.target, block.pairs)


def spool_validation(corpora: Sequence[NamedCorpus], path: Path, texts: Path, report: Progress) -> Spool:
    """Reads their validation text, every line of it, into a spool at ``path``, with tags.

    Args:
        texts: ``texts.source.txt`` (with tags) and ``texts.target.txt`` are written, too.

    Raises:
        UserError: an input cannot be read or is empty, its sides have unequal numbers of lines, or a line is not UTF-8.
    """
    tallies = [Tally(corpus.name, corpus.tag) for corpus in corpora]
    spool = Spool(path, tallies)
    files = [file for corpus in corpora for file in input_files(corpus.valid)]
    with (
        report.stage("reading the validation text", _total_bytes(files)) as step,
        path.open("wb") as file,
        texts.with_name(texts.name + ".source.txt").open("wb") as source_file,
        texts.with_name(texts.name + ".target.txt").open("wb") as target_file,
    ):
        for corpus, tally in zip(corpora, tallies, strict=True):
            for part in corpus.valid:
                before = tally.read
                for block in part.blocks():
                    _check_utf8(block, part, tally.read - before)
                    tally.read, tally.kept = tally.read + block.pairs, tally.kept + block.pairs
                    spool.read += block.pairs
                    with_tags = _tagged(block, corpus.tag)
                    source_file.write(with_tags.source)
                    target_file.write(with_tags.target)
                    spool.append(store_block(with_tags), file)
        step(sum(file.bytes_read for file in files), spool.read)
    if not spool.read:
        raise UserError(f"the validation text is empty ({', '.join(file.name for file in files)}).")
    return spool


def _check_utf8(block: PairBlock, part: AlignedFiles | TabSeparated, before: int) -> None:
    """Raises UserError where a line is not UTF-8; ``before`` are the lines of ``part`` before the block."""
    for number, pair in enumerate(zip(lines_of(block.source), lines_of(block.target), strict=True), before + 1):
        try:
            for line in pair:
                line.decode()
        except UnicodeDecodeError:
            raise UserError(
                f"{part.where(number)} is not UTF-8, as validation text must be; repair the line."
            ) from None  # fmt: skip


def _total_bytes(files: Sequence[InputFile]) -> int | None:
    sizes = [file.size for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)
