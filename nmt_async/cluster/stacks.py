"""Python stacks of a child, written by itself when its parent asks or when it crashes.

faulthandler writes them from within the signal's handler, so that a child tells where it is also while it hangs in a
system call or a kernel of torch. The file has no name, and the child never waits for a reader as it would at a pipe.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
from typing import Any

QUESTION = signal.SIGUSR1
"""The signal to which a child answers with its stacks. `child.signals_later` holds it back until it can."""


class StackFile:
    """What one child writes; hand it to the process as one of its arguments, and call `answer` there first.

    Raises:
        OSError: no file can be had.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("nmt-async-stacks")
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._read = 0

    def __getstate__(self) -> dict[str, Any]:
        # DupFd passes the descriptor on to the process that is being spawned, and works only then.
        from multiprocessing.reduction import DupFd

        return {"descriptor": DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._descriptor = state["descriptor"].detach()
        self._read = 0

    def answer(self) -> None:
        """In the child: from now on it answers, and tells where it was if it crashes."""
        faulthandler.enable(self._descriptor)
        faulthandler.register(QUESTION, self._descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {QUESTION})

    def take(self) -> str:
        """In the parent: what was written since last taken; empty if nothing was, or the file is closed."""
        if self._descriptor < 0:
            return ""
        written = os.fstat(self._descriptor).st_size
        text = os.pread(self._descriptor, written - self._read, self._read)
        self._read = written
        return text.decode(errors="replace").strip()

    def close(self) -> None:
        """Gives the descriptor back. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def ask(process: int) -> None:
    """Has a child write its stacks, as soon as it runs; one that has ended stays silent."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, QUESTION)


def state_of(process: int) -> str:
    """What keeps a process from running, in words; empty if nothing does or the system does not say."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            letter = file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return {
        "T": f"its process is stopped, kill -CONT {process} lets it go on",
        "t": "a debugger halts it",
        "D": "it waits for a disk or a device",
    }.get(letter, "")
