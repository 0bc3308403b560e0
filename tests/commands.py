"""``nmt-async`` as one types it, in a process of its own, without a second of importing torch for each.

The process is forked by a server that has imported everything (`nmt_async.process.fork_server`). What the command sees
is what a fresh process sees: its words, environment and folder, the three standard streams, a session of its own, the
signals as Python sets them at its start, nothing of the tests'. It ends as one ends: what is registered for the end is
done, and the exit code or the signal is told. What it forks its own children from is forked at its start too. A few
tests start the installed script from a shell, and `tests/process` starts fork servers as users' commands do.
"""

from __future__ import annotations

import atexit
import inspect
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from nmt_async.process import fork_server
from nmt_async.process.fork_server import Forked
from nmt_async.process.inheritance import Descriptor

PATIENCE = 60.0
"""Seconds after which a test gives up on what takes a few."""

PROGRAM = [sys.executable, "-c", "from nmt_async.cli.start import main; main()"]
"""How a process of the package calls ``nmt-async``."""

REAL = subprocess.Popen

IMPORTED = (
    "nmt_async.cli.prepare", "nmt_async.cli.train", "nmt_async.cli.translate", "nmt_async.cli.watch",
    "nmt_async.cli.compare", "nmt_async.cli.study", "nmt_async.training.trainer", "nmt_async.training.validation",
    "nmt_async.cluster.worker", "nmt_async.text.preparation", "nmt_async.translate.files",
    "nmt_async.display.live", "nmt_async.display.study", "nmt_async.study.runner", "sacrebleu",
)  # fmt: skip
"""What commands import, so that each need not."""


class Command(subprocess.Popen):
    """Of ``nmt-async`` with these words; otherwise what `subprocess.Popen` is, whose options it takes."""

    _forked: Forked | None = None

    def _execute_child(self, *given: Any) -> None:  # what Popen calls with the ends of its pipes
        names = list(inspect.signature(REAL._execute_child).parameters)[1:]  # type: ignore[attr-defined]
        asked = dict(zip(names, given, strict=True))
        ends = [("p2cread", 0), ("c2pwrite", 1), ("errwrite", 2)]
        streams = [Descriptor(asked[name] if asked[name] != -1 else number) for name, number in ends]
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        words = [str(word) for word in asked["args"]]
        self._forked = fork_server.fork(_command, (words, environment, asked["cwd"], streams), IMPORTED)
        self.pid = self._forked.pid
        self._child_created = True
        both = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in both))  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._forked is not None:
            self.returncode = self._forked.exitcode
            if self.returncode is not None:
                self._forked.close()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        assert self._forked is not None
        limit = None if timeout is None else time.monotonic() + timeout
        while self._internal_poll() is None:
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            wait([self._forked.sentinel], left)
        assert self.returncode is not None
        return self.returncode


def run(words: Any, input: Any = None, timeout: float = PATIENCE, check: bool = False, **options: Any) -> Any:
    """What `subprocess.run` does, for ``nmt-async`` with these words."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Command(words, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def popen(words: Any, **options: Any) -> subprocess.Popen[Any]:
    """What `subprocess.Popen` does, in the place of which it can stand: if it is ``nmt-async`` that is called."""
    if list(words[:3]) != PROGRAM:
        return REAL(words, **options)
    options.pop("preexec_fn", None)  # which a forked command needs not: it dies with what it is forked from
    return Command(words[3:], **options)


def _command(words: list[str], environment: dict[str, str], folder: Any, streams: list[Descriptor]) -> None:
    """The body of the command's process."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.number, number)
    for stream in streams:
        os.close(stream.number)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    for place in filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)):
        sys.path.insert(0, place)
        if (Path(place) / "sitecustomize.py").exists():
            runpy.run_path(str(Path(place) / "sitecustomize.py"))
    sys.argv[:] = ["nmt-async", *words]
    _fork_the_server()
    subprocess.Popen = popen  # type: ignore[assignment, misc]  # what the command calls is forked like itself
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    from nmt_async.cli.start import main

    try:
        main()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def _fork_the_server() -> None:
    """What the command's own children are forked from, as long as this process is as it was forked itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    with fork_server.signals_later():
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                ours.close()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.environ.update(dict.fromkeys(fork_server.THREAD_VARIABLES, "1"))
                fork_server.serve(theirs.detach(), parent, True)
            finally:
                os._exit(0)
    theirs.close()
    process = _Process(pid)

    real = fork_server._Server.begun

    def begun() -> fork_server._Server:
        fork_server._Server.begun = real  # type: ignore[method-assign]  # the next one is begun as ever
        return fork_server._Server(process, ours)  # type: ignore[arg-type]

    fork_server._Server.begun = begun  # type: ignore[method-assign, assignment]
    atexit.register(process.kill)


class _Process:
    """What the command's side of a fork server does with its process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = False

    def poll(self) -> int | None:
        self.ended = self.ended or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return 0 if self.ended else None

    def kill(self) -> None:
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        if not self.ended:
            os.waitpid(self.pid, 0)
            self.ended = True
