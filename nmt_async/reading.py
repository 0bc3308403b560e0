"""Reads what others wrote and trusts none of it: ordinary files of a sane size, JSON objects, values of their types."""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nmt_async.options import value_type

LARGEST = 64 * 2**20
"""Bytes of a description that is read whole before anything is known of it."""

T = TypeVar("T")


def open_ordinary(path: Path) -> BufferedReader:
    """The file, opened for reading.

    Raises:
        OSError: it cannot be, or is a pipe, which would let the reader wait for ever, or a device, which has no end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
    return os.fdopen(handle, "rb")


def read_text(path: Path, most: int = LARGEST) -> str:
    """What the file says.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than ``most`` bytes, or is not UTF-8.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, and never more than {most:,} are written there")
        return file.read().decode()


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that ``text`` is.

    Raises:
        ValueError: it is none.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    return values


def read_json_lines(path: Path, whole: bool = False) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that are none, as a crash leaves them, are passed over.

    Args:
        whole: only the last one may be none, which may just be being written.

    Raises:
        OSError: it cannot be read.
        ValueError: another line is none.
    """
    objects = []
    with open_ordinary(path) as file:
        lines = file.read().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            objects.append(json_object(line.decode("utf-8", errors="replace")))
        except ValueError as error:
            if whole and number < len(lines):
                raise ValueError(f"line {number:,}: {error}") from None
    return objects


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises as `read_text` and `json_object` do."""
    return json_object(read_text(path))


def within(folder: Path, name: Any) -> Path:
    """``folder / name``.

    Raises:
        ValueError: ``name`` is not the name of something in the folder, as ``/etc`` or ``../x``.
    """
    path = PurePath(name) if isinstance(name, str) else PurePath()
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise ValueError(f"it names {str(name)[:60]!r}, which is not in {folder}")
    return folder / path


def as_dataclass(kind: type[T], values: Any, others: bool = False) -> T:
    """A dataclass from what JSON made of it.

    Args:
        others: keys that it has no field for are passed over.

    Raises:
        TypeError: something is missing, unknown or of another type.
        ValueError: a key or a text cannot be used.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__.lstrip('_')} is not a mapping")
    made: Any = kind
    hints = _hints(made)
    unknown = [name for name in values if name not in hints]
    if unknown and not others:
        raise TypeError(f"{unknown[0][:60]!r} is not known")
    for field in fields(made):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"{field.name} is missing")
    return kind(**{name: _typed(hint, values[name], name) for name, hint in hints.items() if name in values})


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _typed(hint: Any, value: Any, name: str) -> Any:
    kind, optional = value_type(hint)
    if value is None and optional:
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        return as_dataclass(kind, value)
    origin = get_origin(kind) or kind
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields") and isinstance(value, list):
        hints = _hints(kind)
        if len(value) != len(hints):
            raise TypeError(f"{name} cannot be {str(value)[:40]!r}")
        return kind(*(_typed(each, item, name) for each, item in zip(hints.values(), value, strict=True)))
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_typed(get_args(kind)[0], item, name) for item in value)
    if origin in (Mapping, dict) and isinstance(value, dict):
        key, item = get_args(kind)
        return {key(each): value[each] if item is Any else _typed(item, value[each], name) for each in value}
    if type(value) is int and kind in (int, float) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} has too many digits")
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        if kind is str:
            value.encode()  # JSON can name half a character, which no file can hold
        return value
    raise TypeError(f"{name} cannot be {str(value)[:40]!r}")
