"""A run in a process of its own, seen from outside: its processes, how long nothing came of it, and what it leaves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import Command
from training_runs import alive, family, parents, typed

HANG = 10.0
"""Seconds in which nothing is computed and nothing comes that are a hang."""

IN_VAIN = 60.0
"""Seconds of a processor that are spent while nothing comes that are a hang as well."""

SEEN = 0.1
"""Seconds between two looks."""

START: Callable[..., subprocess.Popen[str]] = Command
"""Starts what is watched, in a session of its own."""

INJECTED = Path(__file__).parent / "injected"
_WORKER = re.compile(r"\[worker\] (\d+) is process (\d+)")


class Hang(AssertionError):
    """Nothing came of a run for too long."""


def session_of(pid: int) -> int:
    """The session that a process belongs to, by its first process; 0 if the process has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def wants_processor(pid: int) -> bool:
    """Whether a thread of the process computes, waits for a processor or for the disk at this moment."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return any((task / "stat").read_text().rpartition(")")[2].split()[0] in "RD" for task in tasks)
    except (OSError, IndexError):
        return False


def processor_seconds(pid: int) -> tuple[float, float]:
    """Seconds of a processor that the process's busiest thread has had, and has waited for but for the present wait."""
    most = (0.0, 0.0)
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            had, waited, _ = (task / "schedstat").read_text().split()
            most = max(most, (int(had) / 1e9, int(waited) / 1e9))
    except (OSError, ValueError):
        pass
    return most


class WatchedRun:
    """One start of a run.

    A pause is the time in which neither the journal nor the log grows. Whether it is a hang is not told by the clock
    alone, or a busy machine would be taken for one: by the time in which no process computes or waits for a processor,
    or by the processor time that was spent for nothing.

    Args:
        data: the prepared folder.
        out: the run's.
        options: as `training_runs.typed` takes them.

    Attributes:
        longest_pause, longest_idle: seconds; of the latter nobody wanted a processor.
        stopped: processes that the test has stopped, while which nothing is a hang.
    """

    def __init__(self, data: Path, out: Path, **options: Any) -> None:
        self.out = out
        self.shared = set(os.listdir("/dev/shm"))
        # A pipe, since what limits the size of files would limit a file of its words too.
        self.process = START(
            ["train", str(data), *typed(out, **options)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": str(INJECTED)}, start_new_session=True,
        )  # fmt: skip
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.stopped: set[int] = set()
        self.longest_pause = self.longest_idle = 0.0
        self._spent: dict[int, tuple[float, float]] = {}
        self._progress: tuple[int, ...] = ()
        self._moved = self._looked = time.monotonic()
        self._idle = self._in_vain = 0.0

    @property
    def pid(self) -> int:
        """Of the parent."""
        return self.process.pid

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self._said.extend(self.process.stdout)

    def said(self) -> str:
        """Everything it printed, once it has ended."""
        self._reader.join(HANG)
        return "".join(self._said)

    @property
    def ended(self) -> bool:
        """Whether the parent is gone."""
        return self.process.poll() is not None

    def size(self, name: str = "journal") -> int:
        """Bytes of one of the run's files."""
        try:
            return (self.out / name).stat().st_size
        except OSError:
            return 0

    def workers(self) -> list[int]:
        """Process ids of those that live."""
        try:
            log = (self.out / "train.log").read_text(errors="replace")
        except OSError:
            return []
        latest = {int(index): int(pid) for index, pid in _WORKER.findall(log)}
        ours = family(self.pid)
        return [pid for _, pid in sorted(latest.items()) if pid in ours and alive(pid)]

    def look(self) -> None:
        """Takes note of what has happened since the last look.

        Raises:
            Hang: nothing did for too long.
        """
        now = time.monotonic()
        progress = tuple(self.size(name) for name in ("journal", "train.log", "metrics.jsonl"))
        members = family(self.pid)
        spent = {pid: processor_seconds(pid) for pid in members}
        since = [(had - self._spent.get(pid, (0.0, 0.0))[0], waited - self._spent.get(pid, (0.0, 0.0))[1])
                 for pid, (had, waited) in spent.items()]  # fmt: skip
        self._spent = spent
        if progress != self._progress or self.stopped:
            self._progress, self._moved, self._idle, self._in_vain = progress, now, 0.0, 0.0
        else:
            self._in_vain += max((had for had, _ in since), default=0.0)
            if not any(map(wants_processor, members)):
                self._idle += max(0.0, now - self._looked - max((had + waited for had, waited in since), default=0.0))
        self.longest_idle = max(self.longest_idle, self._idle)
        self.longest_pause = max(self.longest_pause, now - self._moved)
        self._looked = now
        if self._idle > HANG or self._in_vain > IN_VAIN:
            raise Hang(
                f"nothing came for {now - self._moved:.0f} s: {self._idle:.0f} s nobody computed, "
                f"{self._in_vain:.0f} s were computed in vain"
            )

    def until(self, condition: Callable[[], object]) -> bool:
        """Watches until ``condition`` or the run's end; whether it was the condition.

        Raises:
            Hang: see `look`.
        """
        while not self.ended:
            if condition():
                return True
            self.look()
            time.sleep(SEEN)
        return False

    def passed(self, seconds: float) -> bool:
        """Watches for so long; whether the run still goes on."""
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() >= end)

    def send(self, number: signal.Signals, pid: int | None = None) -> None:
        """A signal to the parent, or to one of the others."""
        try:
            os.kill(pid or self.pid, number)
        except ProcessLookupError:
            return
        if number in (signal.SIGSTOP, signal.SIGCONT):
            (self.stopped.add if number == signal.SIGSTOP else self.stopped.discard)(pid or self.pid)

    def left_behind(self) -> list[str]:
        """Once the parent is gone: processes and shared memory that outlive it by more than `HANG`.

        A process that was killed needs a processor to die; it is waited for longer, but not for ever.
        """
        begin = time.monotonic()
        while True:
            orphans = self._orphans()
            left = [f"process {pid}" for pid in orphans]
            left += [f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - self.shared]
            seconds = time.monotonic() - begin
            if not left or seconds > IN_VAIN or (seconds > HANG and not any(map(wants_processor, orphans))):
                return left
            time.sleep(SEEN)

    def _orphans(self) -> list[int]:
        return [pid for pid in parents() if session_of(pid) == self.pid and alive(pid)]

    def end(self) -> None:
        """Kills whatever is still there, after a test that failed."""
        for pid in [self.pid, *self._orphans()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
