"""A process that has imported torch and forks a child whenever it is asked, so that a start takes milliseconds.

It is a fresh Python, so a child never inherits what its parent has begun: threads, CUDA, the user's own main module.
It computes nothing itself, so that it stays without threads, which a fork would lose. It starts with the first child
unless `prepare` started it earlier, and dies with its parent; its children die with it.

The two speak over a pair of sockets that nobody else holds. A message is the names of modules to import; with it come
the descriptors of a child that is to be forked, if one is. For each child there is a second pair of sockets, at which
the server says the process id and how the child ended. The server keeps the process id of a child that has ended until
the parent closes its end, so that a signal never strikes another process that was given the same number.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from nmt_async.process.inheritance import HandingPickler, ReceivingUnpickler, Surroundings

PACKAGE = __name__.partition(".")[0]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

ANSWER_SECONDS = 60.0
"""A server that has imported everything and does not answer for so long is given up."""

QUESTION = signal.SIGUSR1
"""The signal to which a child answers with its stacks, once it can."""

_GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve({control}, {parent}, {die})"
_MOST_DESCRIPTORS = 250  # the kernel passes 253 at once


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Processes started inside hear SIGINT, SIGTERM and the question for their stacks only once they let them through.

    The parent hears them after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_GROUP_SIGNALS, QUESTION})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """The calling process gets this signal when the thread that started it ends; other systems than Linux ignore it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)


# The parent's side.


class Forked:
    """A child as its parent sees it.

    Attributes:
        pid: its process id, which no other process has until `close`.
        sentinel: can be read, as `multiprocessing.connection.wait` finds out, once the child has ended.
    """

    def __init__(self, pid: int, sentinel: socket.socket) -> None:
        self.pid = pid
        self.sentinel = sentinel
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        if self._exitcode is None and self.sentinel.fileno() >= 0 and wait([self.sentinel], 0):
            word, number = _heard(self.sentinel)
            # If nothing is heard, the server has died, and the child, killed, with it.
            self._exitcode = number if word == "exit" else -signal.SIGKILL
        return self._exitcode

    def kill(self) -> None:
        """Ends it; one that has ended is left alone."""
        if self.sentinel.fileno() >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def join(self) -> None:
        """Waits for its end."""
        while self.exitcode is None:
            if not wait([self.sentinel], 1.0) and state_of(self.pid) in ("", "Z", "X"):  # the server is stopped
                self._exitcode = -signal.SIGKILL

    def close(self) -> None:
        """Gives its process id back; the server ends one that still runs. Safe to call twice."""
        self.sentinel.close()


class _Server:
    """The server's process, seen from its parent.

    Args:
        process: of the server; it serves at the other end of ``control``.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self._imported: set[str] = set()
        self._importing = True

    @classmethod
    def begun(cls) -> _Server:
        """A new one, which imports nothing yet.

        Raises:
            OSError: it could not be started.
        """
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Who ends is told by thread: started by a thread that ends before its process, the server would die with it.
        die = threading.current_thread() is threading.main_thread()
        program = _PROGRAM.format(
            path=sys.path, module=__name__, control=theirs.fileno(), parent=os.getpid(), die=die
        )  # fmt: skip
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        # Libraries read the number of threads when they are loaded. Here they must start none.
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
        with theirs, signals_later():
            process = subprocess.Popen(
                [sys.executable, *flags, "-c", program], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=environment, process_group=0,
            )  # fmt: skip
        return cls(process, control)

    def wants(self, modules: Sequence[str]) -> None:
        """Has it import what it has not imported yet."""
        new = [name for name in modules if name not in self._imported]
        if new:
            self.control.send(" ".join(new).encode())
            self._imported.update(new)
            self._importing = True

    def fork(self, descriptors: Sequence[int]) -> Forked:
        """A new child, which finds what to do in the first of ``descriptors``.

        Raises:
            ConnectionError: the server died, or does not answer.
            OSError: it could not fork.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self.control, [b" "], [theirs.fileno(), *descriptors])
            # To import may take minutes from a disk that is far away.
            _expect(ours, "ready", None if self._importing else ANSWER_SECONDS)
            self._importing = False
            number = _expect(ours, "pid", ANSWER_SECONDS)
        except BaseException:
            ours.close()
            raise
        return Forked(number, ours)

    def end(self) -> None:
        """Kills it, and all its children with it."""
        self.control.close()
        self.process.kill()
        self.process.wait()


def _heard(connection: socket.socket) -> tuple[str, int]:
    """The next thing that the server says of a child: a word and a number; nothing at the end."""
    try:
        word, _, number = connection.recv(64).decode().partition(" ")
    except ConnectionError:
        return "", 0
    return word, int(number or 0)


def _expect(connection: socket.socket, what: str, seconds: float | None) -> int:
    if not wait([connection], seconds):
        raise ConnectionError(f"the process that starts others did not answer for {seconds:.0f} s")
    word, number = _heard(connection)
    if word == "error":
        raise OSError(number, os.strerror(number))
    if word != what:
        raise ConnectionError("the process that starts others has died")
    return number


def state_of(process: int) -> str:
    """The letter by which the kernel names what a process does; empty if there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


ATTEMPTS = 5
"""Servers that are tried for one child: each of them may be killed while it starts."""

_lock = threading.Lock()
_server: _Server | None = None


def _running() -> _Server:
    global _server
    if _server is not None and _server.process.poll() is not None:
        _server.end()
        _server = None
    if _server is None:
        _server = _Server.begun()
    return _server


def prepare(*modules: str) -> None:
    """Starts the server if it does not run, and has it import these modules; waits for neither.

    Raises:
        OSError: it could not be started.
    """
    with _lock:
        _running().wants(("torch", *modules))


def fork(body: Callable[..., None], arguments: tuple[Any, ...], modules: Sequence[str] = ()) -> Forked:
    """Has a new process run ``body(*arguments)``, which must be picklable, as must be what is in them.

    Args:
        modules: what it needs, imported in the server once for all children that need it.

    Raises:
        OSError: the process could not be started.
    """
    with os.fdopen(os.memfd_create("nmt-async-start"), "w+b") as file:
        pickle.dump(Surroundings.here(), file)
        pickler = HandingPickler(file)
        pickler.dump((body, arguments))
        file.flush()
        if len(pickler.descriptors) > _MOST_DESCRIPTORS:
            raise ValueError(f"{len(pickler.descriptors)} open files are too many for one child")
        descriptors = [file.fileno(), *pickler.descriptors]
        with _lock:
            for _ in range(ATTEMPTS - 1):
                try:
                    return _fork(descriptors, modules)
                except ConnectionError:
                    close()
            return _fork(descriptors, modules)


def _fork(descriptors: Sequence[int], modules: Sequence[str]) -> Forked:
    server = _running()
    server.wants(("torch", *modules))
    return server.fork(descriptors)


def close() -> None:
    """Ends the server with all its children; the next child gets another. Safe to call twice."""
    global _server
    if _server is not None:
        _server.end()
        _server = None


def _forget() -> None:
    """In a copy of this process that somebody forked: the server is the original's."""
    global _server, _lock
    if _server is not None:
        _server.control.close()
    _server, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)


# The server's side.


def serve(control: int, parent: int, die: bool) -> None:
    """The body of the server's process.

    Args:
        control: the descriptor at which requests come; its end is that of the parent.
        parent: its process id.
        die: the kernel kills the server with the thread that started it.
    """
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # which forgets one that came for the whole group
    if die:
        die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked to be told
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_GROUP_SIGNALS, signal.SIGCHLD})
    gc.disable()
    pid = os.getpid()
    task = _Service(socket.socket(fileno=control)).serve()
    if task is not None:
        gc.enable()
        os._exit(_child(pid, task))


class _Service:
    """The server's loop."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.handles: dict[int, socket.socket | None] = {}
        self.told: set[int] = set()
        self.woken, self.waking = socket.socketpair()
        for end in (self.woken, self.waking):
            end.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.selector.register(self.woken, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waking.fileno(), warn_on_full_buffer=False)

    def serve(self) -> list[int] | None:
        """In the server until its parent is gone: None. In each child at once: its descriptors."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.woken:
                    self.woken.recv(4096)
                    for pid in list(self.handles):
                        self._look(pid)
                elif key.fileobj is self.control:
                    message, descriptors, _, _ = socket.recv_fds(
                        self.control, 65536, _MOST_DESCRIPTORS + 3, socket.MSG_CMSG_CLOEXEC
                    )
                    if not message:
                        return None
                    self._import(message.decode().split())
                    if descriptors and self._fork(socket.socket(fileno=descriptors[0]), descriptors[1:]):
                        return descriptors[1:]
                else:
                    self._drop(key.data)

    def _import(self, modules: Sequence[str]) -> None:
        for name in modules:
            with contextlib.suppress(Exception):  # the child that needs it raises it again, and tells
                importlib.import_module(name)
        if modules:
            gc.collect()
            gc.freeze()  # so that no child's collector touches, and by that copies, what all share

    def _fork(self, handle: socket.socket, descriptors: Sequence[int]) -> bool:
        """Whether this is the child."""
        _say(handle, "ready")
        try:
            pid = os.fork()
        except OSError as error:
            _say(handle, "error", error.errno or 0)
            handle.close()
            pid = -1
        if pid == 0:
            self._leave()
            handle.close()
            return True
        if pid > 0:
            self.handles[pid] = handle
            self.selector.register(handle, selectors.EVENT_READ, pid)
            _say(handle, "pid", pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return False

    def _leave(self) -> None:
        """In a new child: what is the server's own is closed."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.selector.close()
        for mine in (self.control, self.woken, self.waking, *self.handles.values()):
            if mine is not None:
                mine.close()

    def _look(self, pid: int) -> None:
        """Tells how a child has ended, if it has; forgets it if nobody wants to know."""
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        handle = self.handles[pid]
        if handle is None:
            os.waitpid(pid, 0)
            del self.handles[pid]
            self.told.discard(pid)
        elif pid not in self.told:
            self.told.add(pid)
            _say(handle, "exit", ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_WR)  # so that the other end can be read from now on

    def _drop(self, pid: int) -> None:
        """The parent has closed its end: the child is not wanted any more."""
        handle = self.handles[pid]
        assert handle is not None
        self.selector.unregister(handle)
        handle.close()
        self.handles[pid] = None
        os.kill(pid, signal.SIGKILL)
        self._look(pid)


def _say(handle: socket.socket, word: str, number: int = 0) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, or does not want to know
        handle.send(f"{word} {number}".encode())


def _child(server: int, descriptors: Sequence[int]) -> int:
    """The body of a forked child; its exit code."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != server:
        return 1
    try:
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            pickle.load(file).take_up()
            body, arguments = ReceivingUnpickler(file, descriptors[1:]).load()
        body(*arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    return 0
