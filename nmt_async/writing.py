"""Files and folders that appear under their names whole or not at all, and files that grow and lose nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nmt_async.errors import UserError


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


class AppendedFile:
    """A file that grows; what the disk did not take is kept, and written before what comes next.

    Args:
        path: made if absent.

    Attributes:
        size: bytes in the file and those still to come.
        written: bytes that this object has written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._unwritten = bytearray()
        self.size = self._file.tell()
        self.written = 0

    def append(self, content: str | bytes) -> None:
        """Takes what is to be written with the next `flush`."""
        data = content.encode() if isinstance(content, str) else content
        self._unwritten += data
        self.size += len(data)

    def flush(self) -> None:
        """Hands all to the system.

        Raises:
            OSError: not all could be written; the rest is tried again the next time.
        """
        while self._unwritten:
            written = self._file.write(self._unwritten)
            self.written += written
            del self._unwritten[:written]

    def secure(self) -> None:
        """Brings to the disk what was flushed. Another thread may call it.

        Raises:
            OSError: it cannot be brought there.
        """
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing more will come; what the disk had no room for is lost."""
        with suppress(OSError):
            self.flush()
        self._file.close()


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


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the disk of ``path``.

    Raises:
        OSError: it is not there.
    """
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
