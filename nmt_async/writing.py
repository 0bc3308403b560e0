"""Writes a file so that nobody ever sees half of it under its name."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes beside, then renames; what could not be written whole leaves what was there.

    Args:
        content: text, which gets a newline at its end if it has none, or bytes, written as they are.

    Raises:
        OSError: it could not be written.
    """
    if isinstance(content, str):
        content = (content if content.endswith("\n") else content + "\n").encode()
    beside = path.with_name(path.name + ".partial")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
