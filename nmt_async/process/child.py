"""A child process: how it starts, what it leaves to its parent, where it is when asked, and how it ended.

A child does not hear Ctrl-C and what timeout(1) sends to the parent's whole group: what those mean, the parent alone
decides. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from nmt_async.allocation import keep_freed_memory
from nmt_async.process import fork_server
from nmt_async.process.fork_server import PACKAGE, QUESTION, THREAD_VARIABLES
from nmt_async.process.inheritance import Descriptor

_PR_SET_NAME = 15

_open: set[Child] = set()


def children() -> list[Child]:
    """Of this process: those that run, or have ended and are not closed yet."""
    return list(_open)


class StackFile:
    """Python stacks that a child writes itself when its parent asks (`Child.ask`) or when it crashes.

    faulthandler writes them from within the signal's handler, so that a child tells where it is also while it hangs in
    a system call or a kernel of torch. The file has no name, and the child never waits for a reader as it would at a
    pipe.

    Raises:
        OSError: no file can be had.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("nmt-async-stacks")
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._read = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"descriptor": Descriptor(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._descriptor = state["descriptor"].number
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


class Child:
    """A process that runs ``body(*arguments, pipe)``, with the other end of `pipe`.

    Args:
        name: in words, for messages and for ``ps`` (of which it shows 15 letters).
        body: a function of a module, as pickle wants it.
        arguments: can be pickled; may hold `Descriptor`.
        threads: that it may compute with.

    Attributes:
        pipe: to it.
        stacks: what it writes when it is asked where it is, or crashes.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, name: str, body: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        self.name = name
        self.stacks = StackFile()
        self.pipe, theirs = Pipe()
        with theirs:
            try:
                settled = (name, threads, self.stacks, body, arguments, Descriptor(theirs.fileno()))
                self._process = fork_server.fork(_settled, settled, _modules(body, *arguments))
            except BaseException:
                self.pipe.close()
                self.stacks.close()
                raise
        _open.add(self)

    @property
    def pid(self) -> int:
        """Its process id, which no other process has until `close`."""
        return self._process.pid

    @property
    def sentinel(self) -> Any:
        """Can be read, as `multiprocessing.connection.wait` finds out, once it has ended."""
        return self._process.sentinel

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode

    @property
    def ending(self) -> str:
        """How it came to its end, in words."""
        code = self.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        if code == -signal.SIGKILL:
            return "killed by signal 9; out of memory?"
        name = f", {signal.Signals(-code).name}" if -code in set(signal.Signals) else ""
        return f"killed by signal {-code}{name}"

    @property
    def state(self) -> str:
        """What keeps it from running, in words; empty if nothing does or the system does not say."""
        return {
            "T": f"its process is stopped, kill -CONT {self.pid} lets it go on",
            "t": "a debugger halts it",
            "D": "it waits for a disk or a device",
        }.get(fork_server.state_of(self.pid), "")

    def ask(self) -> None:
        """Has it write its stacks, as soon as it runs; one that has ended stays silent."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, QUESTION)

    def kill(self) -> None:
        """Kills it, unless it has ended; it may take a moment to end."""
        self._process.kill()

    def end(self) -> None:
        """Kills it, unless it has ended, and waits for its end. Safe to call twice."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Ends it and gives back what it was spoken to with. Safe to call twice."""
        self.end()
        self._process.close()
        self.pipe.close()
        self.stacks.close()
        _open.discard(self)


def _modules(*values: Any) -> list[str]:
    """Modules of this package that define the values, or functions and methods in them."""
    found = []
    for value in values:
        value = getattr(value, "func", value)  # of functools.partial
        module = getattr(value, "__module__", None) or type(value).__module__
        if isinstance(module, str) and module.partition(".")[0] == PACKAGE:
            found.append(module)
    return found


def _settled(
    name: str, threads: int, stacks: StackFile, body: Callable[..., None], arguments: tuple[Any, ...],
    pipe: Descriptor,
) -> None:  # fmt: skip
    """In the child: settles in, and runs its body."""
    stacks.answer()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
    keep_freed_memory()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))  # for libraries that are loaded from now on
    import torch

    torch.set_num_threads(threads)
    with Connection(pipe.number) as connection:
        body(*arguments, connection)


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Programs started inside see the thread count from their first instruction on."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
