"""Runs a command whose training workers are kept on one core each, with a busy program on one of the cores if asked.

    python examples/slowed-worker/pinned.py --watch STUDY [--busy CORE] -- COMMAND...

A worker is kept on the core of its number, counted over the cores that there are. Which process a worker is, it reads
in the ``train.log`` of the runs under STUDY. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from nmt_async.process.fork_server import die_with_parent

TICK = 0.5
"""Seconds between two looks at the logs."""
_WORKER = re.compile(r"^\[[^]]*\] \[worker\] (\d+) is process (\d+)$", re.MULTILINE)


def workers_told(folder: Path) -> dict[int, int]:
    """Process ids that the logs under ``folder`` name, with the number of the worker."""
    told = {}
    for log in folder.glob("runs/*/train.log"):
        for worker, process in _WORKER.findall(log.read_text(encoding="utf-8", errors="replace")):
            told[int(process)] = int(worker)
    return told


def has_begun(process: int) -> bool:
    """Whether a worker has taken its parent's cores, which would undo what is set before; its name comes after them."""
    try:
        return Path(f"/proc/{process}/comm").read_text().startswith("worker")
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False


def pin(process: int, core: int) -> None:
    """Keeps all threads of a process on a core; those that have ended are left alone.

    Raises:
        PermissionError: it is another user's.
    """
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), {core})


@contextlib.contextmanager
def workers_pinned(folder: Path, cores: list[int]) -> Iterator[None]:
    """Within, each worker that a log under ``folder`` newly names is kept on the core of its number.

    Raises:
        OSError: at the end, if one could not be: what was measured is not what was asked for.
    """
    done = set(workers_told(folder))
    over = threading.Event()
    failed: list[OSError] = []

    def watch() -> None:
        while not over.wait(TICK):
            try:
                for process, worker in workers_told(folder).items():
                    if process not in done and has_begun(process):
                        done.add(process)
                        pin(process, cores[worker % len(cores)])
            except OSError as error:
                failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def core_busy(core: int | None) -> Iterator[None]:
    """Within, a program keeps this core busy."""
    if core is None:
        yield
        return

    def alone() -> None:
        die_with_parent()
        os.sched_setaffinity(0, {core})

    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=alone)
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def main() -> int:
    """The command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watch", type=Path, required=True, metavar="STUDY", help="the study's folder")
    parser.add_argument("--busy", type=int, metavar="CORE", help="counted over the cores that there are, from 0")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if arguments.busy is not None and not 0 <= arguments.busy < len(cores):
        print(f"--busy: there is no core {arguments.busy}; give 0 to {len(cores) - 1}.", file=sys.stderr)
        return 2
    core = None if arguments.busy is None else cores[arguments.busy]
    with core_busy(core), workers_pinned(arguments.watch, cores):
        command = subprocess.Popen(arguments.command)
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command by itself, which saves what it has
        signal.signal(signal.SIGTERM, lambda number, _: command.send_signal(number))
        return command.wait()


if __name__ == "__main__":
    sys.exit(main())
