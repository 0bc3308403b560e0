"""Memory that new processes can have, and what a process has taken, as the kernel says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")


def available_memory(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """Bytes that new processes can have: what the machine has left, or the control groups of this process."""
    lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    return min([1024 * int(lines["MemAvailable"].split()[0]), *_left_in_groups(proc, groups)])


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
    lines = dict(line.split(":", 1) for line in (PROC / "self" / "status").read_text().splitlines())
    peak, files = (1024 * int(lines[name].split()[0]) for name in ("VmHWM", "RssFile"))
    return peak - files
