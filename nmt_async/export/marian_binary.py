"""Marian's binary model files (``.bin``), read without trust, and written: float32, and matrices of 8 or 16 bits.

    version, number of items                    8 bytes each, as all whole numbers here; little-endian
    length of name, type, dimensions, bytes     of each item
    names                                       each ended by a zero
    shapes                                      4 bytes a dimension
    bytes of the gap, and the gap               after it, the position is a multiple of 256
    contents                                    each filled up to a multiple of 256 bytes, in newer files

This is what Marian's ``src/common/binary.cpp`` writes. **Quantised matrices** (intgemm) hold whole numbers, and behind
the last of them, as float32, by what the values were multiplied before they were rounded. There are two dialects with
different numbers for the types: that of Marian, and that of its fork for browsers (browsermt/marian-dev), in which
embeddings are quantised, too. A matrix (rows, columns) is stored in one of these layouts:

- transposed, for any processor: all rows of the first column, then those of the second;
- embeddings in the fork: as they are, row by row;
- packed for the registers of a processor (SSE2, SSSE3, AVX2, AVX512; Marian only): eight columns at a time, and of
  these, as many rows at a time as a register has room for; then column after column.

FBGEMM's layouts (``packed16``, ``packed8avx2``, ``packed8avx512``) are not read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from nmt_async.errors import shown
from nmt_async.reading import open_ordinary

SUFFIX = ".bin"
VERSION, ENCRYPTED = 1, 2
ALIGNMENT = 256
"""Contents begin at multiples of so many bytes, so that Marian can map them into memory."""

MOST_ITEMS = 100_000
MOST_DIMENSIONS = 8
"""Of one file, and of one item; Marian's have a few hundred, and four."""

EMBEDDING = "Wemb"
"""In the names of embeddings, which the fork for browsers does not transpose."""

TRANSPOSED_IN = 16
"""marian-conv transposes in squares of such sides (``Transpose10``), and mixes up a matrix that is not made of them."""

MULTIPLIER = np.dtype("<f4")
LARGEST_CODE = 127
NOTHING = 2.0**-120
"""Of smaller values, the multiplier would be beyond float32."""


@dataclass(frozen=True)
class Kind:
    """A type of items that is read.

    Attributes:
        stored: the numbers in the file.
        quantized: they are codes; else they are the values.
        register: bytes of the registers for which a matrix is packed; 0: it is not.
        browser: it is of the fork for browsers.
    """

    stored: np.dtype
    quantized: bool = False
    register: int = 0
    browser: bool = False


BYTES, FLOAT32, INTGEMM8 = 0x101, 0x404, 0x10001
_INT8, _INT16 = np.dtype("<i1"), np.dtype("<i2")
KINDS: dict[int, Kind] = {
    BYTES: Kind(_INT8),
    0x402: Kind(np.dtype("<f2")),
    FLOAT32: Kind(np.dtype("<f4")),
    0x4101: Kind(_INT8, quantized=True, browser=True),
    0x4102: Kind(_INT16, quantized=True, browser=True),
    INTGEMM8: Kind(_INT8, quantized=True),
    0x18001: Kind(_INT8, quantized=True, register=16),
    0x11001: Kind(_INT8, quantized=True, register=32),
    0x12001: Kind(_INT8, quantized=True, register=64),
    0x13001: Kind(_INT8, quantized=True, register=64),
    0x10002: Kind(_INT16, quantized=True),
    0x14002: Kind(_INT16, quantized=True, register=16),
    0x11002: Kind(_INT16, quantized=True, register=32),
    0x12002: Kind(_INT16, quantized=True, register=64),
}
"""By their numbers in Marian (``src/common/types.h`` of either)."""

NOT_READ = {0x802: "packed16", 0x1801: "packed8avx2", 0x2801: "packed8avx512"}
"""FBGEMM's."""


@dataclass(frozen=True)
class Item:
    """What the file says of an item.

    Attributes:
        shape: of the values.
        type: its number.
        begin: where its contents begin, in bytes.
        length: of its contents, in bytes.
    """

    shape: tuple[int, ...]
    type: int
    begin: int
    length: int

    @property
    def kind(self) -> np.dtype:
        """The type of what `BinaryFile.read` gives: float32 of a quantised matrix."""
        kind = KINDS[self.type]
        return np.dtype("<f4") if kind.quantized else kind.stored


class BinaryFile:
    """The items of an open file.

    Raises:
        ValueError: it is no such file, or is damaged.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._items = self._read_items()

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def names(self) -> set[str]:
        """Of all items."""
        return set(self._items)

    def described(self, name: str) -> Item:
        """What the item is.

        Raises:
            ValueError: there is no such item, it is of a type that is not read, has fewer bytes than it needs, or was
                mixed up when it was written.
        """
        if name not in self._items:
            raise ValueError(f"{shown(name)} is missing")
        item = self._items[name]
        if item.type in NOT_READ:
            raise ValueError(
                f"{name} is packed for FBGEMM ({NOT_READ[item.type]}), which only FBGEMM unpacks; import the model.npz "
                f"it was made of, or convert that with --gemm-type intgemm8"
            )
        if item.type not in KINDS:
            raise ValueError(f"{shown(name)} is of type {item.type:#x}, of which this version knows nothing")
        kind = KINDS[item.type]
        needed = math.prod(item.shape) * kind.stored.itemsize + MULTIPLIER.itemsize * kind.quantized
        if item.length < needed:
            raise ValueError(
                f"{shown(name)} has {item.length:,} bytes, and its shape {shown(item.shape)} needs {needed:,}"
            )
        if kind.quantized and not _as_it_is(kind, name):
            rows, columns = _sides(item.shape)
            if rows % TRANSPOSED_IN or columns % TRANSPOSED_IN:
                raise ValueError(
                    f"{shown(name)} has shape {shown(item.shape)}, and marian-conv mixes up matrices whose sides are "
                    f"no multiples of {TRANSPOSED_IN}; import the model.npz it was made of"
                )
        return item

    def read(self, name: str) -> np.ndarray:
        """The values of an item, float32 if it is quantised.

        Raises:
            ValueError: as `described`, or it cannot be unpacked.
        """
        item = self.described(name)
        kind, size = KINDS[item.type], math.prod(item.shape)
        stored = self._numbers(item.begin, kind.stored, size)
        if not kind.quantized:
            return stored.reshape(item.shape)
        multiplier = self._numbers(item.begin + stored.nbytes, MULTIPLIER, 1)[0]
        if not multiplier > 0.0:
            raise ValueError(f"{shown(name)} was multiplied by {multiplier:g} before it was rounded")
        codes = _unpacked(stored, item.shape, kind, name)
        with np.errstate(all="ignore"):  # the caller refuses what is not finite
            values: np.ndarray = np.multiply(codes, np.float32(1.0) / multiplier, dtype=np.float32)
        return values

    def _numbers(self, begin: int, kind: np.dtype, count: int) -> np.ndarray:
        """Numbers of the file.

        Raises:
            ValueError: it ends before them.
        """
        if begin + count * kind.itemsize > self._size:
            raise ValueError(f"it has {self._size:,} bytes, and ends before what it says that it holds")
        self._file.seek(begin)
        content = self._file.read(count * kind.itemsize)
        return np.frombuffer(content, dtype=kind, count=count)

    def _read_items(self) -> dict[str, Item]:
        version, count = (int(number) for number in self._numbers(0, np.dtype("<u8"), 2))
        if version == ENCRYPTED:
            raise ValueError("it is encrypted")
        if version != VERSION:
            raise ValueError(f"it is not a binary model of Marian's (it begins with {version:#x}, and not with 1)")
        if count > MOST_ITEMS:
            raise ValueError(f"it says that it holds {count:,} items")
        headers = self._numbers(16, np.dtype("<u8"), 4 * count).reshape(count, 4).tolist()
        position = 16 + 32 * count
        names = []
        for length, *_ in headers:
            letters = self._numbers(position, np.dtype("u1"), length).tobytes()
            names.append(letters.rstrip(b"\0").decode(errors="backslashreplace"))
            position += length
        shapes = []
        for name, (_, _, dimensions, _) in zip(names, headers, strict=True):
            if dimensions > MOST_DIMENSIONS:
                raise ValueError(f"{shown(name)} has {dimensions:,} dimensions")
            shapes.append(tuple(self._numbers(position, np.dtype("<i4"), dimensions).tolist()))
            position += 4 * dimensions
        position += 8 + int(self._numbers(position, np.dtype("<u8"), 1)[0])
        items: dict[str, Item] = {}
        for name, shape, (_, type_, _, length) in zip(names, shapes, headers, strict=True):
            if name in items:
                raise ValueError(f"it holds {shown(name)} twice")
            if any(size < 0 for size in shape):
                raise ValueError(f"{shown(name)} has shape {shown(shape)}")
            if position + length > self._size:
                raise ValueError(
                    f"it has {self._size:,} bytes, and {shown(name)} would end at {position + length:,}; it is cut off"
                )
            items[name] = Item(shape, type_, position, length)
            position += length
        return items


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of what counts as a matrix."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def _as_it_is(kind: Kind, name: str) -> bool:
    """Whether codes stand in the order of the matrix."""
    return kind.browser and EMBEDDING in name


def _unpacked(stored: np.ndarray, shape: Sequence[int], kind: Kind, name: str) -> np.ndarray:
    """The codes in the order of the matrix.

    Raises:
        ValueError: a matrix of that shape cannot be packed so.
    """
    if _as_it_is(kind, name):
        return stored.reshape(shape)
    rows, columns = _sides(shape)
    if not kind.register:
        return stored.reshape(columns, rows).T.reshape(shape)
    at_once = kind.register // kind.stored.itemsize
    if rows % at_once or columns % 8:
        raise ValueError(
            f"{shown(name)} is packed for registers of {kind.register} bytes, into which its shape {shown(shape)} does "
            f"not fit"
        )
    blocks = stored.reshape(columns // 8, rows // at_once, 8, at_once)
    return blocks.transpose(1, 3, 0, 2).reshape(shape)


@contextmanager
def opened_binary(path: Path) -> Iterator[BinaryFile]:
    """The file, open.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no binary model, or is damaged.
    """
    with open_ordinary(path) as file:
        yield BinaryFile(file)


@dataclass(frozen=True)
class Codes:
    """A quantised matrix.

    Attributes:
        values: whole numbers from -127 to 127 of its shape, int8.
        multiplier: by what its values were multiplied before they were rounded.
    """

    values: np.ndarray
    multiplier: np.float32


def quantised_to_8_bits(matrix: np.ndarray) -> Codes:
    """As Marian does it: the largest value becomes 127, and halves are rounded to even numbers."""
    largest = np.abs(matrix).max(initial=0.0)
    if largest < NOTHING:
        return Codes(np.zeros(matrix.shape, dtype=np.int8), np.float32(1.0))
    multiplier = np.float32(LARGEST_CODE) / np.float32(largest)
    codes = np.rint(matrix * multiplier).clip(-LARGEST_CODE, LARGEST_CODE)
    return Codes(codes.astype(np.int8), multiplier)


def write_binary(path: Path, arrays: Mapping[str, np.ndarray | Codes]) -> None:
    """Writes arrays of float32 or bytes, and quantised matrices for any processor (Marian's ``intgemm8``).

    Args:
        arrays: by name; the sides of quantised matrices are multiples of `TRANSPOSED_IN`.

    Raises:
        OSError: it cannot be written.
    """
    contents = {name: _content(array) for name, array in arrays.items()}
    shapes = {name: (array.values if isinstance(array, Codes) else array).shape for name, array in arrays.items()}
    header = np.array([VERSION, len(arrays)], dtype="<u8").tobytes()
    for name, array in arrays.items():
        numbers = [len(name.encode()) + 1, _type_of(array), len(shapes[name]), len(contents[name])]
        header += np.array(numbers, dtype="<u8").tobytes()
    header += b"".join(name.encode() + b"\0" for name in arrays)
    header += b"".join(np.array(shape, dtype="<i4").tobytes() for shape in shapes.values())
    gap = ALIGNMENT - (len(header) + 8) % ALIGNMENT
    with path.open("wb") as file:
        file.write(header + np.array([gap], dtype="<u8").tobytes() + bytes(gap))
        for content in contents.values():
            file.write(content)


def _type_of(array: np.ndarray | Codes) -> int:
    if isinstance(array, Codes):
        return INTGEMM8
    return {np.dtype(np.float32): FLOAT32, np.dtype(np.int8): BYTES}[array.dtype]


def _content(array: np.ndarray | Codes) -> bytes:
    if isinstance(array, Codes):
        content = np.ascontiguousarray(array.values.T).tobytes() + array.multiplier.astype(MULTIPLIER).tobytes()
    else:
        content = np.ascontiguousarray(array).tobytes()
    return content + bytes(-len(content) % ALIGNMENT)
