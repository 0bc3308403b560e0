"""An exchange in a thread of its own, so that whoever deals batches and hears workers is never held up by a network."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.distributed_c10d import Store

from nmt_async.errors import RunFailure
from nmt_async.machines.group import LOOK, Group, MachineLost
from nmt_async.machines.watch import Watch
from nmt_async.sync.between.contribution import Contribution, Joint

PAUSE = 0.02
"""Seconds between two looks whether somebody has called. A thread that waited inside torch until somebody does would be
there still when the process ends, and abort it: Python ends such a thread when it comes back, which C++ does not allow.
"""


@dataclass(frozen=True)
class Called:
    """Another machine, or this one, is ready: everybody contributes what it has."""


@dataclass(frozen=True)
class Landed:
    """What all machines brought together.

    Attributes:
        joint: beside the vectors.
        total: the sum (size,) of these.
    """

    joint: Joint
    total: Tensor


class Exchange:
    """One exchange after another.

    Args:
        group: of the machines.
        store: a connection to where they met, if whoever is ready first calls the others; None: each comes when it is
            ready.
        watch: who is still there, if there is anybody else.
    """

    def __init__(
        self, group: Group, store: Callable[[], Store] | None = None, watch: Watch | None = None
    ) -> None:  # fmt: skip
        self.group = group
        self._watch = watch
        self._closed = False
        self._store = store
        self._round = 0
        self._brought: Tensor | None = None
        self._called = -1
        self._jobs: queue.SimpleQueue[tuple[Contribution, Tensor] | None] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._happened: queue.SimpleQueue[Called | Landed | Exception] = queue.SimpleQueue()
        self._reader, self._writer = os.pipe()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work, name="exchange", daemon=True)]
        if store is not None:
            self._threads.append(threading.Thread(target=self._call, name="calls", daemon=True))
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        """Is readable when `take` has something to give."""
        return self._reader

    def call(self) -> None:
        """This machine is ready; without a store nobody needs to be called."""
        if self._called == self._round:
            return
        self._called = self._round
        if self._store is None:
            self._tell(Called())
        else:
            self._calls.put(self._round)

    def begin(self, contribution: Contribution, vector: Tensor) -> None:
        """Brings this machine's part; ``vector`` (size,) becomes the sum, and nobody may touch it until then.

        The network takes what is in the CPU's memory; a vector elsewhere is copied there, and the sum back.
        """
        self._round += 1
        self._brought = vector
        self._jobs.put((contribution, vector.cpu()))

    def take(self) -> Called | Landed | None:
        """What has happened, None if nothing more has.

        Raises:
            RunFailure: a machine is gone.
        """
        try:
            happened = self._happened.get_nowait()
        except queue.Empty:
            return None
        os.read(self._reader, 1)
        if isinstance(happened, Exception):
            raise happened
        if isinstance(happened, Landed) and self._brought is not None and self._brought is not happened.total:
            return Landed(happened.joint, self._brought.copy_(happened.total))
        return happened

    def check(self) -> None:
        """Whether all others are still there, as far as is known.

        Raises:
            MachineLost: one of them is not.
        """
        if self._watch is not None and self._watch.missing():
            raise MachineLost(self._watch.explain(""))

    def _tell(self, happened: Called | Landed | Exception) -> None:
        self._happened.put(happened)
        os.write(self._writer, b"\0")

    def _work(self) -> None:
        number = 0
        try:
            connection = None if self._store is None else self._store()
            while not self._ending.is_set():
                if connection is not None:
                    self._await_call(connection, number)
                    if self._ending.is_set():
                        return
                    self._tell(Called())
                job = self._jobs.get()
                if job is None:
                    return
                self._tell(self._exchanged(*job))
                number += 1
        except RunFailure as failure:
            self._tell(failure)
        except Exception as error:  # the thread that waits must hear of it, whatever it is
            self._tell(self._failure(error))

    def _failure(self, error: Exception) -> RunFailure:
        text = f"{type(error).__name__}: {error}"
        return MachineLost(f"an exchange failed ({text})." if self._watch is None else self._watch.explain(text))

    def _exchanged(self, contribution: Contribution, vector: Tensor) -> Landed:
        said = self.group.gather(contribution.encode())
        self.group.add(vector)
        return Landed(Joint([Contribution.decode(text) for text in said]), vector)

    def _await_call(self, connection: Store, number: int) -> None:
        """Until somebody is ready for the round of this number."""
        while not connection.check([f"round/{number}"]):
            if self._ending.wait(PAUSE):
                return
        if self.group.rank == 0 and number:  # all others have seen the call before this one
            connection.delete_key(f"round/{number - 1}")

    def _call(self) -> None:
        assert self._store is not None
        try:
            connection = self._store()
            while (number := self._calls.get()) is not None:
                connection.set(f"round/{number}", "1")
        except Exception as error:  # as in `_work`
            self._tell(self._failure(error))

    def close(self) -> None:
        """No more exchanges; one that is under way is given up. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._ending.set()
        self.group.give_up()
        self._jobs.put(None)
        self._calls.put(None)
        for thread in self._threads:
            thread.join(2 * LOOK.total_seconds())
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._reader)
            os.close(self._writer)
