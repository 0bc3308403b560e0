"""A ring of parameter buffers: a pull is one whole version, without locks and without a copy.

Each worker computes directly on the buffer that held the latest version when it began; the server writes the next
version into a buffer that nobody reads, or in place if nobody reads the current one. With one buffer a worker and
one more there always is a free one. A reader that dies is released by its server and blocks nobody.
"""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor


class ParameterRing:
    """Buffers of which one holds the current parameters.

    Args:
        buffers: (readers + 1, size): one more than there are readers at any time.
    """

    def __init__(self, buffers: Tensor) -> None:
        self.buffers = buffers
        self.index = 0
        self._read: dict[Hashable, int] = {}

    @property
    def current(self) -> Tensor:
        """The current parameters, (size,)."""
        return self.buffers[self.index]

    def acquire(self, reader: Hashable) -> int:
        """The index of the current buffer, not to be written until ``reader`` releases it.

        Raises:
            ValueError: the reader holds one already.
        """
        if reader in self._read:
            raise ValueError(f"reader {reader!r} holds a buffer already")
        self._read[reader] = self.index
        return self.index

    def release(self, reader: Hashable) -> None:
        """The reader holds nothing any more; releasing twice is no harm."""
        self._read.pop(reader, None)

    def release_all(self) -> None:
        """Nobody holds anything any more."""
        self._read.clear()

    def held_by(self, reader: Hashable) -> Tensor | None:
        """The parameters (size,) that ``reader`` holds, None if it holds none."""
        index = self._read.get(reader)
        return None if index is None else self.buffers[index]

    def hold(self, reader: Hashable, parameters: Tensor) -> None:
        """``reader`` holds a copy of ``parameters`` (size,), an older version, as it did before the run was resumed.

        Raises:
            ValueError: the reader holds a buffer already.
        """
        if reader in self._read:
            raise ValueError(f"reader {reader!r} holds a buffer already")
        free = self._free()
        self.buffers[free].copy_(parameters)
        self._read[reader] = free

    def _free(self) -> int:
        """A buffer that is not current and that nobody holds."""
        taken = {self.index, *self._read.values()}
        return next(index for index in range(len(self.buffers)) if index not in taken)

    def writable(self) -> Tensor:
        """A buffer with the current parameters in it, current from now on, that no reader holds."""
        before = self.index
        after = self.fresh()
        return after if self.index == before else after.copy_(self.buffers[before])

    def fresh(self) -> Tensor:
        """A buffer for the next parameters, current from now on, that no reader holds; what it holds is no matter."""
        if self.index in self._read.values():
            self.index = self._free()
        return self.current
