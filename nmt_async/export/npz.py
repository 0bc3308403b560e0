"""numpy's ``.npz``, read without trust: no pickles, no more of a file than was asked for, sizes before contents.

A file is a ZIP archive with one array in each entry (numpy.lib.format).
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt_async.errors import shown
from nmt_async.reading import open_ordinary

SUFFIX = ".npy"


@dataclass(frozen=True)
class Array:
    """What an entry says that it holds.

    Attributes:
        shape: of the array.
        kind: its type.
        by_columns: whether it lies in Fortran's order.
        begin: bytes before its content.
    """

    shape: tuple[int, ...]
    kind: np.dtype
    by_columns: bool
    begin: int


class NpzFile:
    """The arrays of an open file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {entry.filename.removesuffix(SUFFIX): entry for entry in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> set[str]:
        """Of all arrays."""
        return set(self._entries)

    def described(self, name: str) -> Array:
        """What the array is, from its first bytes.

        Raises:
            ValueError: there is no such array, or its entry is damaged.
        """
        if name not in self._entries:
            raise ValueError(f"{shown(name)} is missing")
        entry = self._entries[name]
        with _damage(name), self._archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):  # the only one whose header is short
                raise ValueError(f"numpy format {version}")
            shape, by_columns, kind = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
            if kind.hasobject or any(size < 0 for size in shape):
                raise ValueError("it is not an array of numbers")
            if begin + math.prod(shape) * kind.itemsize != entry.file_size:
                raise ValueError(f"its shape {shown(shape)} does not fit its {entry.file_size:,} bytes")
        return Array(shape, kind, by_columns, begin)

    def read(self, name: str) -> np.ndarray:
        """The array.

        Raises:
            ValueError: as `described`, or its content is damaged.
        """
        array = self.described(name)
        with _damage(name), self._archive.open(self._entries[name]) as file:
            content = file.read()[array.begin :]
            flat = np.frombuffer(content, dtype=array.kind)
            return flat.reshape(array.shape, order="F" if array.by_columns else "C")


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """What zipfile and numpy raise over a damaged entry, as one kind of error that names it."""
    try:
        yield
    # RuntimeError is an encrypted entry, NotImplementedError an unknown compression.
    except (ValueError, OSError, EOFError, RuntimeError, TypeError, LookupError, struct.error, OverflowError) as error:
        raise ValueError(f"{shown(name)} cannot be read ({shown(str(error))})") from None
    except (zipfile.BadZipFile, zlib.error, SyntaxError, tokenize.TokenError, MemoryError) as error:
        raise ValueError(f"{shown(name)} is damaged ({shown(str(error))})") from None


@contextmanager
def opened(path: Path) -> Iterator[NpzFile]:
    """The file, open.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no ``.npz``.
    """
    with open_ordinary(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, EOFError, struct.error, NotImplementedError, OverflowError) as error:
            raise ValueError(f"it is not an .npz file ({error})") from None
        with archive:
            yield NpzFile(archive)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays uncompressed, as Marian maps them into memory.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
