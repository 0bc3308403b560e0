"""Where a command's lines go: standard output, or a file that has its name only when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nmt_async.errors import UserError

WriteLine = Callable[[str], None]


@contextmanager
def output_lines(path: Path | None, option: str = "--output") -> Iterator[WriteLine]:
    """A function that writes a line at once: to standard output, or to ``path``, written beside it and renamed
    (a pipe or a device, ``/dev/null``, is written to and stays what it is).

    When nobody reads standard output any more (``| head``), the block ends at the next line, without a word.

    Args:
        option: that named the path, for messages.

    Raises:
        UserError: no file can be made at ``path``, or standard output is closed.
    """
    if path is None:
        if sys.stdout is None:  # as a shell's >&- leaves it
            raise UserError(f"standard output is closed; name a file with {option}.")
        try:
            yield _writer(sys.stdout.buffer)
        except BrokenPipeError:
            # What is still in the buffer must not be written, and fail, once more when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if path.is_dir():
        raise UserError(f"{option}: {path} is a folder; name a file.")
    # A pipe or a device is written to as it is: a file renamed to its name would take its place.
    special = path.exists() and not path.is_file()
    whole = Path(os.path.realpath(path))  # a link stays one
    beside = path if special else whole.with_name(f".{whole.name}.{os.getpid()}.part")
    try:
        file = beside.open("wb")
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be written ({error.strerror}).") from None
    try:
        with file:
            yield _writer(file)
        if not special:
            beside.replace(whole)
    finally:
        if not special:
            beside.unlink(missing_ok=True)


def _writer(file: BinaryIO) -> WriteLine:
    def write_line(line: str) -> None:
        file.write(line.encode("utf-8", errors="replace") + b"\n")
        file.flush()

    return write_line
