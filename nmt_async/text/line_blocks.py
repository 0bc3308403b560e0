"""Many lines at once: text as bytes in which each line ends with a newline, so that nothing is done line by line.

A line of Python for each line of text costs more than SentencePiece needs to encode it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

NEWLINE = ord("\n")
PAIRS, BYTES = 2048, 1 << 22
"""Pairs in a block, and bytes of both sides after which it ends earlier; each thread has a block or two in memory."""


@dataclass(frozen=True)
class PairBlock:
    """Sentence pairs as text.

    Attributes:
        source, target: lines, of the one side and of the other.
        pairs: how many.
    """

    source: bytes
    target: bytes
    pairs: int


def line_ends(text: bytes) -> NDArray[np.int64]:
    """(lines,) where their newlines stand."""
    return np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)


def count_lines(text: bytes) -> int:
    """How many it has."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == NEWLINE))


def lines_of(text: bytes) -> list[bytes]:
    """Its lines without their newlines."""
    return text.split(b"\n")[:-1]


def text_of(lines: list[bytes]) -> bytes:
    """What `lines_of` takes apart."""
    return b"\n".join([*lines, b""])


def kept_lines(text: bytes, keep: NDArray[np.bool_]) -> bytes:
    """Those of its lines that ``keep`` (lines,) has True for."""
    return text if keep.all() else text_of(list(compress(lines_of(text), keep.tolist())))


def line_hashes(text: bytes, salt: int) -> NDArray[np.uint64]:
    """(lines,) eight bytes that stand for each line; with another ``salt``, others.

    The sum of a line's words of eight bytes, each mixed with its place by the finaliser of MurmurHash3 (Appleby): what
    numpy computes for all lines at once, outside Python's lock.
    """
    ends = line_ends(text) + 1  # behind newlines, so that no line is nothing
    begins = np.concatenate([[0], ends])[:-1]
    words = (ends - begins + 7) >> 3
    behind = np.cumsum(words)
    place = np.arange(words.sum()) - np.repeat(behind - words, words)
    at = np.repeat(begins, words) + (place << 3)
    # A view of the eight bytes from each byte on, the last of which are beyond the text.
    values = np.ndarray((len(text),), "<u8", text + bytes(8), strides=(1,))[at]
    last = behind - 1
    values[last] &= _FIRST_BYTES[ends - at[last]]
    keys = _mixed(np.arange(salt, salt + int(words.max()) + 1, dtype=np.uint64) * _MULTIPLIERS[0])
    return np.add.reduceat(_mixed(values ^ keys[place]), behind - words)


_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_MULTIPLIERS = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each value's bits spread over the whole of another value, in place."""
    for multiplier in _MULTIPLIERS:
        values ^= values >> _SHIFT
        values *= multiplier
    values ^= values >> _SHIFT
    return values


class LineReader:
    """Takes lines from a stream of blocks, so many at a time.

    Args:
        blocks: each of whole lines.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._text = b""
        self._ends = np.empty(0, np.int64)
        self._taken = self._begin = 0

    def ahead(self, wanted: int, most: int) -> NDArray[np.int64]:
        """Bytes up to the end of each line that can be taken: ``wanted`` lines or more, fewer where ``most`` bytes hold
        no more or the stream ends; none at its end."""
        while len(self._ends) - self._taken < wanted and len(self._text) - self._begin < most:
            block = next(self._blocks, None)
            if block is None:
                break
            self._text = self._text[self._begin :] + block
            self._ends, self._taken, self._begin = line_ends(self._text) + 1, 0, 0
        return self._ends[self._taken :] - self._begin

    def take(self, lines: int) -> bytes:
        """The next ones, which are ahead."""
        self._taken += lines
        begin, self._begin = self._begin, int(self._ends[self._taken - 1])
        return self._text[begin : self._begin]

    def count(self) -> int:
        """How many lines are left; they are gone then."""
        return len(self._ends) - self._taken + sum(map(count_lines, self._blocks))


def aligned(source: LineReader, target: LineReader) -> Iterator[PairBlock]:
    """Line by line pairs, until one side has no more."""
    while True:
        sides = [reader.ahead(PAIRS, BYTES) for reader in (source, target)]
        pairs = min(PAIRS, *map(len, sides))
        if not pairs:
            return
        both = sides[0][:pairs] + sides[1][:pairs]
        pairs = max(1, int(np.searchsorted(both, BYTES, side="right")))
        yield PairBlock(source.take(pairs), target.take(pairs), pairs)
