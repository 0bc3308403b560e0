"""Memory shared between a parent and its children that has no name, so that none can be left behind.

``memfd_create`` gives pages that live as long as a process holds them. Torch's own sharing goes through /dev/shm,
which containers often limit to 64 MB; these pages count as the processes' ordinary memory.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import torch
from torch import Tensor

from nmt_async.process.inheritance import Descriptor


class SharedVectors:
    """A matrix (rows, size) that children see as well; hand it to a process as one of its arguments.

    Raises:
        OSError: the memory cannot be had.
    """

    def __init__(self, rows: int, size: int, dtype: torch.dtype = torch.float32) -> None:
        self.rows = rows
        self.size = size
        self.dtype = dtype
        descriptor = os.memfd_create("nmt-async")
        os.ftruncate(descriptor, max(dtype.itemsize * rows * size, 4))
        self._map(descriptor)

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, self.dtype.itemsize * self.rows * self.size)
        self.tensor: Tensor = torch.frombuffer(self._memory, dtype=self.dtype).view(self.rows, self.size)

    def __getstate__(self) -> dict[str, Any]:
        known = {"rows": self.rows, "size": self.size, "dtype": self.dtype}
        return {**known, "descriptor": Descriptor(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rows, self.size, self.dtype = state["rows"], state["size"], state["dtype"]
        self._map(state["descriptor"].number)

    def close(self) -> None:
        """Gives the descriptor back; the pages go when the last tensor on them does."""
        os.close(self._descriptor)
