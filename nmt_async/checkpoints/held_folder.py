"""A folder held open, so that another one that has taken its name is not mistaken for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class HeldFolder:
    """The folder that lies at ``path`` now; while it is held, the file system gives its number to no other.

    Raises:
        OSError: there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def check(self) -> None:
        """It still lies there.

        Raises:
            OSError: it was removed, moved or unmounted, or something else lies there.
        """
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, f"{self.path} has vanished") from None
        if not os.path.samestat(os.fstat(self._handle), there):
            raise OSError(errno.ENOENT, f"another folder has taken the place of {self.path}")

    def close(self) -> None:
        """Lets it go."""
        os.close(self._handle)
