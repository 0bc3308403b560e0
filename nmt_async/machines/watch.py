"""Who of the machines is still there: each says so every half second, in the store where they met."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from torch.distributed.distributed_c10d import Store

BEAT = 0.5
"""Seconds between two signs of life."""

SOON = 4.0
"""Seconds in which a machine that lives gives a sign of it; only asked when an exchange has failed already."""

START = 60.0
"""Seconds in which all machines give their first sign."""


SILENT = "nothing is heard any more of"


class Watch:
    """This machine's signs of life, and those of the others.

    Two threads ask the store, so that nobody else waits for its answer: the machine that has it may hang, too.

    Args:
        connect: another connection to the store where the machines met, since each thread needs one of its own.
        rank: which of them this is.
        names: of all, for people.
        timeout: seconds of silence after which a machine is given up.
        host: who has the store, for people.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, names: Sequence[str], timeout: float, host: str
    ) -> None:
        self._rank, self._names, self._timeout, self._host = rank, list(names), timeout, host
        self._mine, self._others = connect(), connect()
        for store in (self._mine, self._others):
            store.set_timeout(datetime.timedelta(seconds=START))
        self._ending = threading.Event()
        now = time.monotonic()
        self._signs = [(b"", now) for _ in self._names]
        self._reasons = [b"" for _ in self._names]
        self._answered = now
        self._broken = False
        self._mine.set(f"left/{rank}", "")
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._beat, "signs of life"), (self._look, "look for signs of life"))
        ]
        for thread in self._threads:
            thread.start()

    def _beat(self) -> None:
        count = 0
        with self._noting_a_broken_store():
            while not self._ending.is_set():
                count += 1
                self._mine.set(f"alive/{self._rank}", str(count))
                self._ending.wait(BEAT)

    def _look(self) -> None:
        machines = range(len(self._names))
        keys = [f"alive/{rank}" for rank in machines] + [f"left/{rank}" for rank in machines]
        with self._noting_a_broken_store():
            while not self._ending.is_set():
                values = self._others.multi_get(keys)
                self._answered = time.monotonic()
                self._reasons = values[len(self._names) :]
                for rank, sign in enumerate(values[: len(self._names)]):
                    if sign != self._signs[rank][0]:
                        self._signs[rank] = sign, self._answered
                self._ending.wait(BEAT)

    @contextlib.contextmanager
    def _noting_a_broken_store(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            self._broken = True

    def _reachable_within(self, seconds: float) -> bool:
        return not self._broken and time.monotonic() - self._answered <= seconds

    @property
    def reachable(self) -> bool:
        """Whether the store still answers."""
        return self._reachable_within(SOON)

    def answers(self) -> bool:
        """Whether the store answers from now on; looks for a few seconds."""
        begin = time.monotonic()
        while not self._broken and self._answered <= begin and time.monotonic() < begin + SOON:
            time.sleep(BEAT / 5)
        return self._answered > begin

    def missing(self) -> bool:
        """Whether a machine has left, or has given no sign of life for too long; or all have lost the store."""
        left = any(reason for rank, reason in enumerate(self._reasons) if rank != self._rank)
        return left or not self._reachable_within(self._timeout) or bool(self.silent_for(self._timeout))

    def silent_for(self, seconds: float) -> list[int]:
        """The ranks of the others of which nothing was heard for so long."""
        now = time.monotonic()
        return [rank for rank, (_, when) in enumerate(self._signs) if rank != self._rank and now - when > seconds]

    def leave(self, reason: str) -> None:
        """Tells the others why this machine leaves."""
        if self.reachable:
            with contextlib.suppress(RuntimeError):
                self._mine.set(f"left/{self._rank}", reason[:500])

    def explain(self, error: str) -> str:
        """Why an exchange failed, in a sentence that names the machine; looks for a few seconds."""
        until = time.monotonic() + SOON
        while True:
            for rank, reason in enumerate(self._reasons):
                if reason and rank != self._rank:
                    said = printable(reason)
                    if said.startswith(SILENT):  # it has left because of another one
                        return f"{said.rstrip('.')}, {self._names[rank]} says."
                    return f"{self._names[rank]} left the run: {said}"
            silent = self.silent_for(SOON - BEAT)
            if self.reachable and silent and (error or self.silent_for(self._timeout)):
                return f"{SILENT} {', '.join(self._names[rank] for rank in silent)}."
            if self._broken or time.monotonic() > until:
                break
            time.sleep(BEAT / 5)
        if not self.reachable:
            return f"{SILENT} {self._host}."
        return f"an exchange between the machines failed ({(error.splitlines() or ['no reason'])[0][:200]})."

    def close(self) -> None:
        """No more signs of life."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * BEAT)


def printable(text: bytes) -> str:
    """What another machine says, as a terminal may show it."""
    return "".join(letter if letter.isprintable() else " " for letter in text.decode(errors="replace"))[:500]
