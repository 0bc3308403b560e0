"""A file of lines as commands read it: UTF-8, where one line is what stands between two line feeds."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.text.corpus import STANDARD_INPUT, InputFile

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
