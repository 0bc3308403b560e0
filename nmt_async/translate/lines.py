"""Lines in and out: read from files and pipes, grouped into windows that are computed together, and written at once.

A line is UTF-8 and stands between two line feeds. Output goes to standard output, or to a file that has its name only
when it is whole.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from nmt_async.errors import UserError, shown
from nmt_async.text.corpus import STANDARD_INPUT, InputFile

T = TypeVar("T")

LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""What some program takes for the end of a line."""


def one_line(text: str) -> str:
    """``text`` with every line break in it turned into a space."""
    return LINE_BREAKS.sub(" ", text)


def warn_on_stderr(message: str) -> None:
    """Where warnings about lines go if nobody says otherwise."""
    print(f"nmt-async: {message}", file=sys.stderr)


def checked_lines(lines: Iterable[str]) -> Iterable[str]:
    """Lines as a program gives them; one that is no text raises a TypeError when it is its turn."""
    if isinstance(lines, str | bytes):
        raise TypeError(f"lines are a list or another iterable of str, not one {type(lines).__name__}: give [line]")
    return map(_checked_line, lines)


def _checked_line(line: str) -> str:
    if not isinstance(line, str):
        raise TypeError(f"{shown(line)} is no line: give str, not {type(line).__name__}")
    return line


MOST_NAMED = 3
"""Lines that are not UTF-8 and are named one by one; the others are counted."""


class TextFile:
    """The lines of a file (plain, gzip or zstd) or, for ``-``, of standard input, as they arrive.

    Args:
        option: the option that named the file, for messages.
        strict: a line that is not UTF-8 ends the reading. Otherwise each byte that cannot be read becomes U+FFFD.
        warn: takes a sentence about lines that are not UTF-8.

    Raises:
        UserError: it cannot be read; while it is read: it is damaged, or, if ``strict``, not UTF-8.
    """

    def __init__(
        self, path: Path, option: str, *, strict: bool = False, warn: Callable[[str], None] | None = None
    ) -> None:  # fmt: skip
        self._file = InputFile(path, option)
        self._file.check()
        self._strict = strict
        self._warn = warn

    @property
    def name(self) -> str:
        """As a message calls it."""
        return self._file.name

    @property
    def size(self) -> int | None:
        """Bytes as stored; None for a pipe or a terminal."""
        return self._file.size

    @property
    def read(self) -> int:
        """Bytes read so far."""
        return self._file.bytes_read

    @property
    def at_hand(self) -> bool:
        """Whether no line has to be waited for, as in a file, ``< file`` too."""
        return self.size is not None or (self._file.path == STANDARD_INPUT and stat.S_ISREG(os.fstat(0).st_mode))

    def again(self) -> Iterator[str]:
        """The lines once more, of a file that is no pipe; without a word."""
        return (line.decode(errors="replace") for line in InputFile(self._file.path, self._file.option).lines())

    def __iter__(self) -> Iterator[str]:
        unreadable = 0
        for number, line in enumerate(self._file.lines(), 1):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                unreadable += 1
                self._tell(number, error, unreadable)
                yield line.decode(errors="replace")
        if unreadable > MOST_NAMED and self._warn is not None:
            self._warn(
                f"{unreadable:,} lines of {self.name} are not UTF-8, the first {MOST_NAMED} of them named above."
            )

    def _tell(self, number: int, error: UnicodeDecodeError, so_far: int) -> None:
        found = f"byte {error.start + 1:,} is 0x{error.object[error.start]:02x}"
        where = f"line {number:,} of {self.name} is not UTF-8 ({found})"
        if self._strict:
            raise UserError(f"{self._file.option}: {where}; convert the file, or leave --strict out.") from None
        if self._warn is not None and so_far <= MOST_NAMED:
            self._warn(f"{where}; what cannot be read becomes U+FFFD.")


def text_lines(path: Path, option: str) -> Iterator[str]:
    """The lines of a file without a word about those that are not UTF-8; raises as `TextFile` does."""
    return iter(TextFile(path, option))


def pairs_of(source: TextFile, target: TextFile) -> Iterator[tuple[str, str]]:
    """Line by line.

    Raises:
        UserError: one file has more lines than the other, found at the end of the shorter.
    """
    targets = iter(target)
    count = 0
    for line in source:
        translation = next(targets, None)
        if translation is None:
            raise _unequal(source.name, target.name, count)
        count += 1
        yield line, translation
    if next(targets, None) is not None:
        raise _unequal(target.name, source.name, count)


def _unequal(longer: str, shorter: str, lines: int) -> UserError:
    return UserError(
        f"{shorter} has {lines:,} lines and {longer} has more; "
        f"line n of the one must be the translation of line n of the other."
    )


PATIENCE = 0.02
"""Seconds to wait for one more line before going on with those that are there."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    """A line, a problem, or, holding neither, the end."""

    line: T | None = None
    problem: BaseException | None = None


def windows(lines: Iterable[T], size: int, at_hand: bool = False) -> Iterator[list[T]]:
    """The lines in groups of at most ``size``, in their order.

    From a sequence, full groups. From anything that yields, a group ends early when no further line is ready: a
    person who types, or a program that waits for its answer, gets one.

    Args:
        at_hand: no line has to be waited for, as none of a file has: full groups then, too.
    """
    if at_hand or isinstance(lines, Sequence):
        remaining = iter(lines)
        while window := list(itertools.islice(remaining, size)):
            yield window
        return
    reader = _Reader(lines, 2 * size)
    try:
        while window := reader.take(size):
            yield window
    finally:
        reader.stop()


class _Reader(Generic[T]):
    """Reads ahead in a thread of its own."""

    def __init__(self, lines: Iterable[T], ahead: int) -> None:
        self.queue: queue.Queue[_Item[T]] = queue.Queue(maxsize=ahead)
        self.stopped = threading.Event()
        self.ended = False
        threading.Thread(target=self._read, args=(lines,), name="lines", daemon=True).start()

    def _read(self, lines: Iterable[T]) -> None:
        try:
            for line in lines:
                if not self._put(_Item(line)):
                    return
        except BaseException as problem:
            self._put(_Item(problem=problem))
        else:
            self._put(_Item())

    def _put(self, item: _Item[T]) -> bool:
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(item, timeout=0.1)
                return True
        return False

    def take(self, size: int) -> list[T]:
        """The next line, waiting for it, and up to ``size`` in all that are ready; none at the end."""
        taken: list[T] = []
        until = math.inf
        while len(taken) < size and not self.ended:
            try:
                item = self.queue.get(timeout=max(0.0, until - time.monotonic()) if taken else None)
            except queue.Empty:
                break
            if item.problem is not None:
                raise item.problem
            if item.line is None:
                self.ended = True
                break
            taken.append(item.line)
            if len(taken) == 1:
                until = time.monotonic() + PATIENCE
        return taken

    def stop(self) -> None:
        """Lets the thread end at its next line."""
        self.stopped.set()


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
