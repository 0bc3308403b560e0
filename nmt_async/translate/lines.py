"""Lines as they arrive, in groups that are computed together; and what makes a text one line."""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.02
"""Seconds to wait for one more line before going on with those that are there."""

LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
"""What some program takes for the end of a line."""


def one_line(text: str) -> str:
    """``text`` with every line break in it turned into a space."""
    return LINE_BREAKS.sub(" ", text)


@dataclass(frozen=True)
class _Item(Generic[T]):
    """A line, a problem, or, holding neither, the end."""

    line: T | None = None
    problem: BaseException | None = None


def windows(lines: Iterable[T], size: int, at_hand: bool = False) -> Iterator[list[T]]:
    """The lines in groups of at most ``size``, in their order.

    From a sequence, full groups. From anything that yields, a group ends early when no further line is ready: a
    person who types, or a program that waits for its answer, gets one.

    Args:
        at_hand: no line has to be waited for, as none of a file has: full groups then, too.
    """
    if at_hand or isinstance(lines, Sequence):
        remaining = iter(lines)
        while window := list(itertools.islice(remaining, size)):
            yield window
        return
    reader = _Reader(lines, 2 * size)
    try:
        while window := reader.take(size):
            yield window
    finally:
        reader.stop()


class _Reader(Generic[T]):
    """Reads ahead in a thread of its own."""

    def __init__(self, lines: Iterable[T], ahead: int) -> None:
        self.queue: queue.Queue[_Item[T]] = queue.Queue(maxsize=ahead)
        self.stopped = threading.Event()
        self.ended = False
        threading.Thread(target=self._read, args=(lines,), name="lines", daemon=True).start()

    def _read(self, lines: Iterable[T]) -> None:
        try:
            for line in lines:
                if not self._put(_Item(line)):
                    return
        except BaseException as problem:
            self._put(_Item(problem=problem))
        else:
            self._put(_Item())

    def _put(self, item: _Item[T]) -> bool:
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(item, timeout=0.1)
                return True
        return False

    def take(self, size: int) -> list[T]:
        """The next line, waiting for it, and up to ``size`` in all that are ready; none at the end."""
        taken: list[T] = []
        until = math.inf
        while len(taken) < size and not self.ended:
            try:
                item = self.queue.get(timeout=max(0.0, until - time.monotonic()) if taken else None)
            except queue.Empty:
                break
            if item.problem is not None:
                raise item.problem
            if item.line is None:
                self.ended = True
                break
            taken.append(item.line)
            if len(taken) == 1:
                until = time.monotonic() + PATIENCE
        return taken

    def stop(self) -> None:
        """Lets the thread end at its next line."""
        self.stopped.set()
