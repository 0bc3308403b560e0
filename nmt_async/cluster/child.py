"""What every child process does first: it dies with its parent, and leaves SIGINT and SIGTERM to it."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

import torch

from nmt_async.cluster.stacks import QUESTION

_PR_SET_PDEATHSIG = 1
_GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def settle_in(threads: int, niceness: int = 0) -> None:
    """Call first in a child, before torch computes anything.

    Args:
        threads: torch may compute with.
        niceness: added to the process's; 10 leaves the cores to others that want them.
    """
    os.setpgrp()  # Ctrl-C and timeout(1) signal the parent's whole group: what that means, the parent alone decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which forgets one that came for the whole group
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    signal.signal(signal.SIGTERM, before)
    parent = multiprocessing.parent_process()
    die_with_parent(signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:  # it died before we asked to be told
        raise SystemExit(1)
    if niceness:
        os.nice(niceness)
    torch.set_num_threads(threads)


def die_with_parent(how: signal.Signals = signal.SIGTERM) -> None:
    """The calling process gets this signal when its parent dies; where that is not Linux, it does not."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(how))


@contextlib.contextmanager
def thread_environment(threads: int) -> Iterator[None]:
    """Children started inside see the thread count from their first instruction on."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Children started inside hear SIGINT and SIGTERM only once they have settled in; the parent after the block.

    So it is with the question for their stacks, which would end a child that cannot answer yet.
    """
    resource_tracker.ensure_running()  # the first process.start() would start it, which unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_GROUP_SIGNALS, QUESTION})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
