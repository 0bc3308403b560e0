"""The faults that can befall a real run, from outside: on its processes, on its limits, on its files."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_runs import children_of, family, name_of
from watched import WatchedRun

from nmt_async.sync.journal import RECORD_BYTES
from nmt_async.training.journal_file import JOURNAL


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    Attributes:
        kind: a key of `STRIKES` or of `DAMAGES`.
        records: of the journal that are written first, counted from the fault before or from the run's start.
        delay: seconds after that.
        which: 0 to 1: who or what it befalls.
        lasting: seconds, of what passes.
    """

    kind: str
    records: int
    delay: float
    which: float
    lasting: float


def one_of(things: list[Any], which: float) -> list[Any]:
    """One of them, or none if there are none."""
    return [things[int(which * len(things))]] if things else []


def signal_worker(number: signal.Signals) -> Callable[[WatchedRun, Fault], int]:
    def strike(run: WatchedRun, fault: Fault) -> int:
        chosen = one_of(run.workers(), fault.which)
        for pid in chosen:
            run.send(number, pid)
        return len(chosen)

    return strike


def kill_all_workers(run: WatchedRun, _: Fault) -> int:
    workers = run.workers()
    for pid in workers:
        run.send(signal.SIGKILL, pid)
    return len(workers)


def kill_fork_server(run: WatchedRun, _: Fault) -> int:
    """What the workers are forked from dies, and they with it."""
    workers = run.workers()
    for pid in children_of(run.pid):
        run.send(signal.SIGKILL, pid)
    return len(workers)


def stop_worker(run: WatchedRun, fault: Fault) -> int:
    """A worker stands still for a while."""
    chosen = one_of(run.workers(), fault.which)
    for pid in chosen:
        run.send(signal.SIGSTOP, pid)
        run.passed(fault.lasting)
        run.send(signal.SIGCONT, pid)
        run.stopped.discard(pid)
    return len(chosen)


def starve_worker(run: WatchedRun, fault: Fault) -> int:
    """A worker gets no more memory for a while."""
    chosen = one_of(run.workers(), fault.which)
    for pid in chosen:
        limit_process(pid, resource.RLIMIT_AS, address_space(pid) + 2**20)
        run.passed(fault.lasting)
        limit_process(pid, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    return len(chosen)


def kill_validation(run: WatchedRun, _: Fault) -> int:
    chosen = [pid for pid in family(run.pid) if name_of(pid) == "validation"]
    for pid in chosen:
        run.send(signal.SIGKILL, pid)
    return len(chosen)


def fill_disk(run: WatchedRun, fault: Fault) -> int:
    """No file of the parent grows beyond a size for a while, which fails as a full disk does."""
    sizes = [run.size(), 200, 20_000, 60_000]
    limit_process(run.pid, resource.RLIMIT_FSIZE, *one_of(sizes, fault.which))
    run.passed(fault.lasting)
    limit_process(run.pid, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    return 1


def signal_run(number: signal.Signals) -> Callable[[WatchedRun, Fault], int]:
    def strike(run: WatchedRun, _: Fault) -> int:
        run.send(number)
        return 1

    return strike


def limit_process(pid: int, what: int, size: int) -> None:
    try:
        resource.prlimit(pid, what, (size, resource.prlimit(pid, what)[1]))
    except ProcessLookupError:
        return


def address_space(pid: int) -> int:
    """Bytes that the process has mapped, none if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


ENDING = {
    "run SIGKILL": signal.SIGKILL,
    "run SIGTERM": signal.SIGTERM,
    "run SIGINT": signal.SIGINT,
}
STRIKES: dict[str, Callable[[WatchedRun, Fault], int]] = {
    "worker SIGKILL": signal_worker(signal.SIGKILL),
    "worker SIGSEGV": signal_worker(signal.SIGSEGV),
    "worker exception": signal_worker(signal.SIGUSR2),
    "all workers SIGKILL": kill_all_workers,
    "fork server SIGKILL": kill_fork_server,
    "worker SIGSTOP": stop_worker,
    "worker without memory": starve_worker,
    "validation SIGKILL": kill_validation,
    "disk full": fill_disk,
    **{kind: signal_run(number) for kind, number in ENDING.items()},
}
"""What befalls processes, by kind; each says how many it hit."""
KILLS = {"worker SIGKILL", "worker SIGSEGV", "worker exception", "all workers SIGKILL", "fork server SIGKILL", *ENDING}


def newest_checkpoint(run: Path) -> list[Path]:
    """The newest, if there is one before it to fall back on."""
    steps = sorted((run / "checkpoints").glob("step-*[0-9]"), key=lambda path: int(path.name[5:]))
    return steps[-1:] if len(steps) > 1 else []


def damage_checkpoint(how: Callable[[Path, float], None]) -> Callable[[Path, Fault], int]:
    def damage(run: Path, fault: Fault) -> int:
        for folder in newest_checkpoint(run):
            files = [folder / name for name in ("model.json", "model.safetensors", "state.json", "state.safetensors")]
            left = [file for file in files if file.is_file() and file.stat().st_size]  # it may be damaged already
            for file in one_of(left, fault.which):
                how(file, fault.lasting % 1.0)
                return 1
        return 0

    return damage


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)


def tear_journal(run: Path, fault: Fault) -> int:
    if not (run / JOURNAL).exists():
        return 0
    with (run / JOURNAL).open("ab") as journal:
        journal.write(b"\1" * (1 + int(fault.which * (RECORD_BYTES - 1))))
    return 1


DAMAGES: dict[str, Callable[[Path, Fault], int]] = {
    "checkpoint truncated": damage_checkpoint(truncate),
    "checkpoint bit flipped": damage_checkpoint(flip),
    "checkpoint file missing": damage_checkpoint(lambda path, _: path.unlink()),
    "journal torn": tear_journal,
}
"""What happens to the files of a run that was killed, before it goes on."""
