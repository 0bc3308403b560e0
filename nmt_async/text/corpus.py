"""Parallel text as it lies on disk: plain, gzip or zstd, line-aligned files or tab-separated pairs, standard input.

Every input is read exactly once, front to back, so pipes serve as well as files; its SHA-256 is taken on the way.
Lines end at ``\\n`` and nowhere else (a ``\\r`` before it goes too), so a stray U+2028 or form feed inside a sentence
cannot shift one side against the other.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from nmt_async.errors import UserError
from nmt_async.text.line_blocks import PAIRS, LineReader, PairBlock, aligned, count_lines, line_ends, text_of

STANDARD_INPUT = Path("-")
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BUFFER = 1 << 18
_TAB = ord("\t")
LONGEST_LINE = 1 << 26
"""Bytes; what has longer lines is no text, and a small compressed file can hold one that no memory does."""


class InputFile:
    """One file of text, or standard input for ``-``; the compression is known by its first bytes, not by its name.

    Attributes:
        option: the option that named it, for messages.
        bytes_read: of the file as stored, so far.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self.option = option
        self.name = "standard input" if path == STANDARD_INPUT else str(path)
        self.bytes_read = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes read so far, as stored: of the whole file once `lines` has ended."""
        return self._digest.hexdigest()

    @property
    def size(self) -> int | None:
        """Bytes as stored; None for a pipe."""
        if self.path == STANDARD_INPUT:
            return None
        status = self.path.stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def check(self) -> None:
        """Raises UserError when the file is absent, a folder, or not ours to read: before anything long begins."""
        if self.path == STANDARD_INPUT:
            return
        if not self.path.exists():
            raise UserError(f"{self.option}: there is no file {self.path}.")
        if self.path.is_dir():
            raise UserError(f"{self.option}: {self.path} is a folder; name a file.")
        if not os.access(self.path, os.R_OK):
            raise UserError(f"{self.option}: {self.path} cannot be read (permission denied).")

    def lines(self) -> Iterator[bytes]:
        """Its lines, decompressed, without their ends and without a byte order mark before the first.

        Raises:
            UserError: it cannot be opened or read, its compressed data is damaged or cut off, or it is no text.
        """
        with self._text() as text:
            for number, line in enumerate(iter(lambda: text.readline(LONGEST_LINE + 1), b"")):
                if len(line) > LONGEST_LINE:
                    raise self._no_text(number + 1)
                if number == 0 and line.startswith(_BYTE_ORDER_MARK):
                    line = line[len(_BYTE_ORDER_MARK) :]
                yield line.rstrip(b"\n").removesuffix(b"\r")

    def line_blocks(self) -> Iterator[bytes]:
        """As `lines`, many at once: each ends with a newline.

        Raises:
            UserError: as `lines`.
        """
        with self._text() as text:
            number, begun = 1, b""  # the line that begins with these bytes
            while block := text.read(_BUFFER):
                end = block.find(b"\n")
                if len(begun) + (len(block) if end < 0 else end) >= LONGEST_LINE:
                    raise self._no_text(number)
                whole = block.rfind(b"\n") + 1
                if whole:
                    lines = _without_mark(begun + block[:whole], number)
                    lines = lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines
                    number += count_lines(lines)
                    yield lines
                begun = block[whole:] if whole else begun + block
            if begun:
                yield _without_mark(begun, number).removesuffix(b"\r") + b"\n"

    @contextmanager
    def _text(self) -> Iterator[io.BufferedReader]:
        """What it holds, decompressed; what goes wrong in reading it becomes a sentence."""
        try:
            with self._open() as raw:
                yield _decompressed(io.BufferedReader(_Tally(raw, self), _BUFFER))
        except EOFError:
            raise UserError(f"{self.option}: {self.name} is cut off in its compressed data; fetch it again.") from None
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise UserError(f"{self.option}: {self.name} is damaged ({error}); fetch it again.") from None
        except OSError as error:
            raise UserError(f"{self.option}: {self.name} cannot be read ({error.strerror or error}).") from None

    def _no_text(self, line: int) -> UserError:
        return UserError(
            f"{self.option}: line {line:,} of {self.name} has more than {LONGEST_LINE:,} bytes; "
            f"is it text, with a sentence a line?"
        )

    def blocks(self) -> Iterator[bytes]:
        """Its bytes as stored, a block at a time.

        Raises:
            UserError: it cannot be opened or read.
        """
        try:
            with self._open() as raw:
                while block := raw.read(_BUFFER):
                    self.count(memoryview(block))
                    yield block
        except OSError as error:
            raise UserError(f"{self.option}: {self.name} cannot be read ({error.strerror or error}).") from None

    def count(self, block: memoryview) -> None:
        """Takes note of the next bytes read."""
        self._digest.update(block)
        self.bytes_read += len(block)

    def _open(self) -> io.FileIO:
        if self.path == STANDARD_INPUT:
            return io.FileIO(0, closefd=False)
        return io.FileIO(self.path)


def _without_mark(lines: bytes, number: int) -> bytes:
    """Lines from the ``number``-th on, without the byte order mark that may stand before the first."""
    return lines.removeprefix(_BYTE_ORDER_MARK) if number == 1 else lines


class _Tally(io.RawIOBase):
    """Passes a file's bytes through and shows each block to its `InputFile`."""

    def __init__(self, raw: io.FileIO, seen_by: InputFile) -> None:
        self._raw = raw
        self._seen_by = seen_by

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._raw.readinto(buffer) or 0
        self._seen_by.count(memoryview(buffer)[:count])
        return count


class _Zstd(io.RawIOBase):
    """Decompresses zstd frames; unlike zstandard's own reader it raises EOFError when the last one is cut off."""

    def __init__(self, stored: io.BufferedReader) -> None:
        self._stored = stored
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._compressed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._text:
            if self._frame.eof:
                self._compressed = self._frame.unused_data or self._stored.read(_BUFFER)
                if not self._compressed:
                    return 0
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            else:
                self._compressed = self._stored.read(_BUFFER)
                if not self._compressed:
                    raise EOFError
            self._text = memoryview(self._frame.decompress(self._compressed))
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count


def _decompressed(stored: io.BufferedReader) -> io.BufferedReader:
    head = stored.peek(4)[:4]
    if head.startswith(_GZIP_MAGIC):
        return io.BufferedReader(gzip.GzipFile(fileobj=stored), _BUFFER)
    if head == _ZSTD_MAGIC:
        return io.BufferedReader(_Zstd(stored), _BUFFER)
    return stored


@dataclass(frozen=True)
class AlignedFiles:
    """A source file and its target file, line by line."""

    source: InputFile
    target: InputFile

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self.source, self.target

    def blocks(self) -> Iterator[PairBlock]:
        """Its sentence pairs.

        Raises:
            UserError: one file has more lines than the other, found at the end of the shorter.
        """
        sides = LineReader(self.source.line_blocks()), LineReader(self.target.line_blocks())
        count = 0
        for block in aligned(*sides):
            count += block.pairs
            yield block
        more = [side.count() for side in sides]
        if any(more):
            raise self._unequal(count + more[0], count + more[1])

    def _unequal(self, source_lines: int, target_lines: int) -> UserError:
        return UserError(
            f"{self.source.name} has {source_lines:,} lines but {self.target.name} has {target_lines:,}; "
            f"line n of the one must be the translation of line n of the other."
        )

    def where(self, line: int) -> str:
        """How a message names the pair at ``line``, counted from one."""
        return f"line {line:,} of {self.source.name} and {self.target.name}"


@dataclass(frozen=True)
class TabSeparated:
    """One file of ``source<TAB>target`` lines."""

    file: InputFile

    @property
    def files(self) -> tuple[InputFile, ...]:
        return (self.file,)

    def blocks(self) -> Iterator[PairBlock]:
        """Its sentence pairs.

        Raises:
            UserError: a line that has not exactly one tab.
        """
        count = 0
        for text in self.file.line_blocks():
            ends = line_ends(text)
            tabs = np.searchsorted(np.flatnonzero(np.frombuffer(text, np.uint8) == _TAB), ends)
            columns = np.diff(tabs, prepend=0) + 1
            if (columns != 2).any():
                row = int(np.flatnonzero(columns != 2)[0])
                raise self._columns(count + row + 1, int(columns[row]))
            count += len(ends)
            cells = text.replace(b"\n", b"\t").split(b"\t")[:-1]
            for begin in range(0, len(ends), PAIRS):
                part = cells[2 * begin : 2 * (begin + PAIRS)]
                yield PairBlock(text_of(part[::2]), text_of(part[1::2]), len(part) // 2)

    def _columns(self, line: int, columns: int) -> UserError:
        return UserError(
            f"{self.where(line)} has {columns} columns; {self.file.option} needs two, source<TAB>target."
        )  # fmt: skip

    def where(self, line: int) -> str:
        """How a message names the pair at ``line``, counted from one."""
        return f"line {line:,} of {self.file.name}"


Corpus = list[AlignedFiles | TabSeparated]


def corpus(
    split: str, sources: Iterable[Path], targets: Iterable[Path], tab_separated: Iterable[Path]
) -> Corpus:  # fmt: skip
    """The parts of the ``split`` (``train`` or ``valid``), in the order they are read.

    Raises:
        UserError: the source files are not as many as the target files, or a file cannot be read.
    """
    source_files = [InputFile(path, f"--{split}-source") for path in sources]
    target_files = [InputFile(path, f"--{split}-target") for path in targets]
    if len(source_files) != len(target_files):
        raise UserError(
            f"--{split}-source is given {_times(source_files)} but --{split}-target {_times(target_files)}; "
            f"give the two files of each pair in the same order."
        )
    parts: Corpus = [AlignedFiles(*pair) for pair in zip(source_files, target_files, strict=True)]
    parts += [TabSeparated(InputFile(path, f"--{split}-tsv")) for path in tab_separated]
    for file in input_files(parts):
        file.check()
    return parts


def _times(files: list[InputFile]) -> str:
    return {0: "not at all", 1: "once"}.get(len(files), f"{len(files)} times")


def input_files(parts: Corpus) -> list[InputFile]:
    """Every file of every part, in the order given."""
    return [file for part in parts for file in part.files]
