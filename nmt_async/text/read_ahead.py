"""Has the system read what training is about to ask for, so that no worker waits for a disk.

A batch is made of sentences from all over the token store. Where they are not in memory, a worker would wait for each
of them. The trainer knows which batches come next. So it reads their sentences some batches before a worker does
(`ReadAhead.soon`). In between it reads the store from front to back, a piece at a time, until all of it is in memory.

It gives as much time to the one as to the other. On a disk that seeks quickly, the batches to come take little. On one
that seeks slowly, nothing helps but to have all of it in memory, and reading from front to back is how it gets there.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nmt_async.free_memory import left_on_machine

SMALLEST_PIECE, LARGEST_PIECE = 1 << 20, 1 << 24
"""Bytes that are read at once: so many that it takes about a tenth of a second, for which what is asked for waits."""


class Readable(Protocol):
    """What lies on a disk and can be read by the sentence."""

    def files(self) -> list[Path]:
        """All of its files."""

    def fetch(self, rows: NDArray[np.integer]) -> None:
        """Brings these sentences into memory."""


class ReadAhead:
    """A thread that reads what comes next, and all of ``store`` meanwhile.

    Where less than twice the size of the store is free, it is not read as a whole: that would push out what is needed.
    """

    def __init__(self, store: Readable) -> None:
        self._store = store
        self._asked: queue.SimpleQueue[NDArray[np.integer] | None] = queue.SimpleQueue()
        self._all_read = False
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
        self._thread.start()

    def soon(self, rows: NDArray[np.integer]) -> None:
        """The sentences at ``rows`` will be asked for soon."""
        if not self._all_read:
            self._asked.put(rows)

    def wait(self) -> None:
        """Until all of the store is read. For who has closed it, or asks where there is room for the store."""
        self._thread.join()

    def close(self) -> None:
        """Reads no more. Safe to call twice."""
        self._asked.put(None)
        self.wait()

    def _run(self) -> None:
        with suppress(OSError):  # a worker that needs what cannot be read says so
            pieces = self._pieces()
            while (rows := self._next_asked(pieces)) is not None:
                begin = time.monotonic()
                self._store.fetch(rows)
                until = 2 * time.monotonic() - begin
                while time.monotonic() < until and next(pieces, False):
                    pass

    def _next_asked(self, pieces: Iterator[bool]) -> NDArray[np.integer] | None:
        """What was asked for, as soon as something is; None at the end, and when all is read."""
        while True:
            more = next(pieces, False)
            if self._all_read:
                return None
            with suppress(queue.Empty):
                return self._asked.get(block=not more)

    def _pieces(self) -> Iterator[bool]:
        """Reads all files, a piece each time, if there is room for them."""
        files = self._store.files()
        if sum(file.stat().st_size for file in files) > left_on_machine() // 2:
            return
        size = SMALLEST_PIECE
        for file in files:
            with file.open("rb", buffering=0) as opened:
                # Not more than a piece at once, as the system would: what is asked for would stand behind it.
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                begin = time.monotonic()
                while os.read(opened.fileno(), size):
                    took = time.monotonic() - begin
                    yield True
                    if took < 0.05:
                        size = min(2 * size, LARGEST_PIECE)
                    elif took > 0.2:
                        size = max(size // 2, SMALLEST_PIECE)
                    begin = time.monotonic()
        self._all_read = True
