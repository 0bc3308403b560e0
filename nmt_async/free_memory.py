"""Memory that there is, and what a process has taken, as the kernel says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
OWN = PROC / "self" / "status"
GROUPS = Path("/sys/fs/cgroup")


def available_memory(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """Bytes that new processes can have: what the machine has left, or the control groups of this process."""
    return min([left_on_machine(proc), *_left_in_groups(proc, groups)])


def left_on_machine(proc: Path = PROC) -> int:
    """Bytes that the system can give without taking them from a process."""
    return _figures(proc / "meminfo", "MemAvailable")[0]


def _left_in_groups(proc: Path, groups: Path) -> Iterator[int]:
    """What each control group (version 2) above this process still allows."""
    try:
        path = (proc / "self" / "cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
    except OSError:
        return
    folder = groups / path
    for group in (folder, *folder.parents):
        if group == groups.parent:
            return
        try:
            yield max(0, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
        except (OSError, ValueError):  # the outermost has no such file; "max" is no limit
            continue


def own_peak() -> int:
    """Bytes that this process had at most, without what it reads of files (libraries, the token store).

    Of the kernel, which knows no peak of that alone: the peak of all less the files' pages now.
    """
    peak, files = _figures(OWN, "VmHWM", "RssFile")
    return peak - files


def most_memory() -> int:
    """Bytes that this process had at most, with the pages of files that it had mapped."""
    return _figures(OWN, "VmHWM")[0]


def _figures(path: Path, *names: str) -> list[int]:
    """What the kernel's file says behind these names, in bytes."""
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return [1024 * int(lines[name].split()[0]) for name in names]
