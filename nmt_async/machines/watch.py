"""Who of the machines is still there: each says so every half second, in the store where they met."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from torch import distributed as torch_distributed

BEAT = 0.5
"""Seconds between two signs of life."""

SOON = 4.0
"""Seconds in which a machine that lives gives a sign of it; only asked when an exchange has failed already."""


class Watch:
    """This machine's signs of life, and those of the others.

    Args:
        connect: another connection to the store where the machines met, since each thread needs one of its own.
        rank: which of them this is.
        names: of all, for people.
        timeout: seconds of silence after which a machine is given up.
        host: where the store is, for people.
    """

    def __init__(
        self, connect: Callable[[], torch_distributed.Store], rank: int, names: Sequence[str], timeout: float, host: str
    ) -> None:
        self._rank, self._names, self._timeout, self._host = rank, list(names), timeout, host
        self._store, self._others = connect(), connect()
        self._ending = threading.Event()
        self._seen = {other: (b"", time.monotonic()) for other in range(len(self._names)) if other != rank}
        self._unreachable = False
        self._looks = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="signs of life", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        while not self._ending.is_set():
            count += 1
            try:
                self._store.set(f"alive/{self._rank}", str(count))
            except RuntimeError:
                self._unreachable = True
                return
            self._ending.wait(BEAT)

    def missing(self) -> list[int]:
        """Machines that have given no sign of life for too long; all others, if the store is gone."""
        return self._silent_for(self._timeout)

    def _silent_for(self, seconds: float) -> list[int]:
        with self._looks:
            try:
                for rank, (before, _) in self._seen.items():
                    key = f"alive/{rank}"
                    now = self._others.get(key) if self._others.check([key]) else b""
                    if now != before:
                        self._seen[rank] = now, time.monotonic()
            except RuntimeError:
                self._unreachable = True
            if self._unreachable:
                return list(self._seen)
            return [rank for rank, (_, when) in self._seen.items() if time.monotonic() - when > seconds]

    def leave(self, reason: str) -> None:
        """Tells the others why this machine leaves."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left/{self._rank}", reason)

    def explain(self, error: str) -> str:
        """Why an exchange failed, in a sentence that names the machine; looks for a few seconds."""
        until = time.monotonic() + SOON
        silent: list[int] = []
        while time.monotonic() < until:
            said = self._said()
            if said:
                rank, reason = said
                return f"{self._names[rank]} left the run: {reason}"
            silent = self._silent_for(SOON - BEAT)
            if self._unreachable:
                return f"nothing is heard any more of the machine that is the meeting point, {self._host}."
            if silent:
                break
            time.sleep(BEAT)
        if not silent:
            return f"an exchange between the machines failed ({error.splitlines()[0][:200]})."
        named = ", ".join(self._names[rank] for rank in silent)
        return f"nothing is heard any more of {named}."

    def _said(self) -> tuple[int, str] | None:
        with self._looks:
            try:
                for rank in self._seen:
                    if self._others.check([f"left/{rank}"]):
                        return rank, self._others.get(f"left/{rank}").decode(errors="replace")[:500]
            except RuntimeError:
                self._unreachable = True
        return None

    def close(self) -> None:
        """No more signs of life."""
        self._ending.set()
        self._thread.join(5)
