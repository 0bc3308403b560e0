"""Whether what a run needs for vectors of its model's size fits: in memory, and its checkpoints on the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nmt_async.cluster.processes import Memory
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.doctor.machine import GROUPS, shared_space
from nmt_async.training.expectation import VECTOR_BYTES, Vectors
from nmt_async.training.options import TrainOptions
from nmt_async.writing import free_bytes

PROC = Path("/proc")


@dataclass(frozen=True)
class Need:
    """What a run takes.

    Attributes:
        vectors: how many of them.
        size: of one.
        worker, validation: bytes besides them that each process takes which computes gradients, and that of validation.
    """

    vectors: Vectors
    size: int
    worker: int = 0
    validation: int = 0

    def memory(self, workers: int) -> int:
        """Bytes, while a checkpoint is written."""
        kept = self.vectors.between_processes + self.vectors.server + self.vectors.checkpoint
        return VECTOR_BYTES * self.size * kept + workers * self.worker + self.validation

    def disk(self, keep_last: int, keep_best: int) -> int:
        """Bytes of all checkpoints and models that are ever there at once: one more of each is being written, and the
        newest checkpoint may rely on best models that are none any more."""
        model = VECTOR_BYTES * self.size
        return (keep_last + 1) * self.vectors.checkpoint * model + (2 * keep_best + 1) * model


def memory_finding(need: Need, workers: int, there: int) -> Finding:
    """Whether all processes together find the memory that they need, of ``there`` bytes."""
    wanted = need.memory(workers)
    found = f"about {mebibytes(wanted)} needed of {mebibytes(there)} that can be had"
    if wanted <= there:
        return Finding("memory", "fine", found)
    return Finding("memory", "wrong", found, "give fewer --workers, fewer --mini-batch-words or a smaller model")


def shared_finding(options: TrainOptions, size: int) -> Finding:
    """Whether the system gives the memory that the processes share."""
    workers = len(options.device_list())
    if options.cluster == "simulated":
        return Finding("shared memory", "fine", f"none needed; {shared_space()}")
    wanted = mebibytes(VECTOR_BYTES * size * (2 * workers + 1))
    try:
        Memory(workers, size).close()
    except OSError as error:
        problem = f"{wanted} cannot be had ({(error.strerror or str(error)).lower()})"
        return Finding("shared memory", "wrong", problem, "raise the limit (ulimit), or give fewer --workers")
    return Finding("shared memory", "fine", f"{wanted} can be had, outside /dev/shm; {shared_space()}")


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


def disk_finding(options: TrainOptions, need: Need) -> Finding:
    """Whether the run's folder can be written, and has room for the planned checkpoints."""
    folder = options.out
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nmt-async")
        free = free_bytes(folder)
    except OSError as error:
        problem = f"{options.out} cannot be written ({(error.strerror or str(error)).lower()})"
        return Finding("disk", "wrong", problem, "give another --out, or make it writable")
    kept = sum(path.stat().st_size for path in (options.out / "checkpoints").glob("*-*/*"))
    wanted = max(0, need.disk(options.keep_last, options.keep_best) - kept)
    found = f"{mebibytes(wanted)} needed for checkpoints in {options.out}, {mebibytes(free)} are free"
    if wanted <= free:
        return Finding("disk", "fine", found)
    advice = f"free {mebibytes(wanted - free)}, give fewer --keep-last or --keep-best, or another --out"
    return Finding("disk", "wrong", found, advice)
