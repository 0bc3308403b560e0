"""A folder that appears under its name whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nmt_async.errors import UserError


def check_free(folder: Path, where: str = "") -> None:
    """Raises UserError, which begins with ``where``, unless ``folder`` is absent or an empty folder."""
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UserError(f"{where}{folder} is a folder that is not empty; name a new one.")
    elif os.path.lexists(folder):
        raise UserError(f"{where}{folder} is a file; name a folder.")


@contextmanager
def built_whole(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder beside ``folder`` to build in; it is renamed when the block ends, and removed when it fails.

    What a killed process left is removed by the next one that builds the same folder: a lock, which the kernel takes
    from the dead, tells it from one still being built.

    Args:
        replace: what lies at ``folder`` gives way at the end; otherwise it must be absent or an empty folder.

    Raises:
        OSError: the folder cannot be made, written or renamed.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    building.mkdir()
    lock = os.open(building, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield building
        flush_folder(building)
        if replace and folder.exists():
            former = building.with_name(f".{folder.name}.{os.getpid()}.former.part")
            folder.rename(former)
            building.rename(folder)
            shutil.rmtree(former)
        else:
            building.rename(folder)
        flush_entry(folder.parent)
    finally:
        os.close(lock)
        shutil.rmtree(building, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}.*.part"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def flush_folder(folder: Path) -> None:
    """To the disk with everything in it, so that a power cut after the rename cannot leave empty files."""
    for path in folder.iterdir():
        flush_entry(path)
    flush_entry(folder)


def flush_entry(path: Path) -> None:
    """One file or folder to the disk; of a folder, the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
