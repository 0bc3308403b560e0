"""A file of lines to which another process appends, read as it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from nmt_async.reading import open_ordinary


class GrowingFile:
    """Gives each line once, when it is whole; a line without its end is kept until that comes.

    Args:
        path: need not be there yet, and may be replaced by another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._torn = b""

    def news(self) -> tuple[bool, list[str]]:
        """The lines that are new since the last time; True if they are all of a file that has taken the other's place.

        Raises:
            OSError: the file cannot be read.
        """
        anew = self._replaced()
        if anew:
            self.close()
        if self._file is None:
            try:
                self._file = open_ordinary(self.path)
            except FileNotFoundError:
                return anew, []
        whole, newline, self._torn = (self._torn + self._file.read()).rpartition(b"\n")
        return anew, whole.decode("utf-8", errors="replace").split("\n") if newline else []

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size < self._file.tell()

    def close(self) -> None:
        """The next reading begins at the file's start."""
        if self._file is not None:
            self._file.close()
        self._file, self._torn = None, b""
