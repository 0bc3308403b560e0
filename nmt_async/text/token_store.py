"""Encoded sentences on disk, memory-mapped: a corpus of any size costs no memory but its lengths.

A store at ``path`` is two files: ``path.tokens``, every sentence's subword indexes with its end mark, one after the
other, little-endian uint16 (uint32 for vocabularies above 65,535); and ``path.offsets``, little-endian int64, where
each sentence begins, in tokens, and last where the last one ends.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError

Number = TypeVar("Number", bound=np.generic)
OFFSET = np.dtype("<i8")
_AT_ONCE = 1 << 20  # sentences whose lengths are computed together, so that little memory is needed beside them


def token_type(vocabulary_size: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest of uint16 and uint32 that holds every index."""
    return np.dtype("<u2" if vocabulary_size <= 65_535 else "<u4")


def store_files(path: Path) -> tuple[Path, Path]:
    """The tokens file and the offsets file of the store at ``path``."""
    return path.with_name(path.name + ".tokens"), path.with_name(path.name + ".offsets")


class StoreWriter:
    """Appends sentences to a new store; its files get their names when it is closed, never if it fails before.

    Attributes:
        tokens: written so far, end marks counted.
        sentences: written so far.
    """

    def __init__(self, path: Path, vocabulary_size: int) -> None:
        self.tokens = 0
        self.sentences = 0
        self._type = token_type(vocabulary_size)
        self._names = store_files(path)
        self._parts = [name.with_name(name.name + ".part") for name in self._names]
        self._files = [part.open("wb") for part in self._parts]
        self._files[1].write(np.zeros(1, OFFSET).tobytes())

    def append(self, sentence: Sequence[int]) -> None:
        """One sentence's subword indexes with its end mark."""
        self.extend(np.array(sentence, self._type), np.array([len(sentence)]))

    def extend(self, ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
        """Many sentences at once, which is faster.

        Args:
            ids: their subword indexes with end marks, one after another.
            lengths: (sentences,) of each.

        Raises:
            OSError: the disk is full, or another failure to write.
        """
        ends = self.tokens + np.cumsum(lengths)
        self._files[0].write(ids.astype(self._type, copy=False).data)
        self._files[1].write(ends.astype(OFFSET).data)
        self.tokens += len(ids)
        self.sentences += len(lengths)

    def close(self) -> None:
        """Makes the store whole under its name."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for part, name in zip(self._parts, self._names, strict=True):
            part.replace(name)

    def discard(self) -> None:
        """Leaves nothing behind."""
        for file, part in zip(self._files, self._parts, strict=True):
            # What is still buffered may not fit on the disk either: closing the raw file drops it.
            file.raw.close()
            part.unlink(missing_ok=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class TokenStore:
    """The sentences of the store at ``path``: ``store[i]`` is sentence i's indexes, a read-only view of the file.

    Raises:
        UserError: a file is missing, or the two do not fit each other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        tokens_file, offsets_file = store_files(path)
        self._offsets = _mapped(offsets_file, OFFSET)
        count = int(self._offsets[-1]) if len(self._offsets) else -1
        size = tokens_file.stat().st_size if tokens_file.is_file() else -1
        width = next((width for width in (2, 4) if count * width == size), None)
        if width is None:
            raise UserError(f"{tokens_file} and {offsets_file.name} do not fit each other; run prepare again.")
        if self._offsets[0] != 0:
            raise self._damaged()
        self._tokens = _mapped(tokens_file, np.dtype(f"<u{width}"), at_random=True)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.unsignedinteger]:
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        begin, end = self._offsets[index : index + 2]
        if not 0 <= begin < end <= len(self._tokens):
            raise self._damaged()
        return self._tokens[begin:end]

    def padded(self, indexes: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Many sentences at once: (rows, longest), beyond its end each row is 0, and (rows,) lengths.

        Raises:
            IndexError: there is no such sentence.
            UserError: the file is damaged.
        """
        rows = np.asarray(indexes, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"sentences {rows.min()} to {rows.max()} of {len(self)}")
        begins, ends = self._offsets[rows], self._offsets[rows + 1]
        if not ((begins >= 0) & (begins < ends) & (ends <= len(self._tokens))).all():
            raise self._damaged()
        lengths = ends - begins
        columns = np.arange(lengths.max(initial=0))
        there = columns < lengths[:, None]
        matrix = np.zeros(there.shape, np.int64)
        matrix[there] = self._tokens[(begins[:, None] + columns)[there]]
        return matrix, lengths.astype(np.int64)

    def fetch(self, rows: NDArray[np.integer]) -> None:
        """Has the system bring the sentences at ``rows`` into memory, all of them at once, and waits until they are.

        Raises:
            OSError: the file cannot be read.
        """
        width = self._tokens.dtype.itemsize
        begins, ends = self._offsets[rows] * width, self._offsets[rows + 1] * width
        places = list(zip(begins.tolist(), (ends - begins).tolist(), strict=True))
        with store_files(self.path)[0].open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing beside them is read with them
            for begin, size in places:
                os.posix_fadvise(file.fileno(), begin, size, os.POSIX_FADV_WILLNEED)
            for begin, size in places:
                os.pread(file.fileno(), size, begin)

    @property
    def tokens(self) -> int:
        """Of all sentences, end marks counted."""
        return int(self._offsets[-1])

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """(sentences,), subwords of each sentence counting its end mark.

        Raises:
            UserError: they cannot be, since the file is damaged.
        """
        found = np.empty(len(self), np.int32)
        for begin in range(0, len(self), _AT_ONCE):
            offsets = self._offsets[begin : begin + _AT_ONCE + 1]
            lengths = np.diff(offsets)
            # Of two offsets far apart the difference may come out as anything.
            if not ((offsets[:-1] < offsets[1:]) & (lengths <= np.iinfo(np.int32).max)).all():
                raise self._damaged()
            found[begin : begin + _AT_ONCE] = lengths
        return found

    def _damaged(self) -> UserError:
        return UserError(
            f"{store_files(self.path)[1]} is damaged: no sentences have such positions; run prepare again."
        )


def _mapped(path: Path, kind: np.dtype[Number], at_random: bool = False) -> NDArray[Number]:
    """The numbers in a file.

    Args:
        at_random: they are read here and there, so that what lies around one is not to be read with it.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file")
        if path.stat().st_size == 0:  # mmap refuses an empty file
            return np.empty(0, kind)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if at_random:
            mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, kind)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run prepare again.") from None
