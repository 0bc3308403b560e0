"""Room on a disk."""

from __future__ import annotations

import os
from pathlib import Path


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the disk of ``path``.

    Raises:
        OSError: it is not there.
    """
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
