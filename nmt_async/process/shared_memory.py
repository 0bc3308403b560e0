"""Memory shared between a parent and its children, on the CPU, on a CUDA device, or in parts on several.

On the CPU it has no name, so that none can be left behind: ``memfd_create`` gives pages that live as long as a process
holds them. Torch's own sharing goes through /dev/shm, which containers often limit to 64 MB; these pages count as the
processes' ordinary memory.

On a CUDA device it is the parent's, and children open it by CUDA's IPC, as `torch.multiprocessing` does.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from nmt_async.process.inheritance import Descriptor
from nmt_async.process.sharded_tensor import Shard, ShardedTensor


class Vectors(Protocol):
    """A matrix (rows, size) that children see as well; hand it to a process as one of its arguments.

    Attributes:
        tensor: the matrix, zeros at first.
    """

    tensor: Tensor

    def close(self) -> None:
        """Nobody else has it any more; the memory goes when the last tensor on it does."""


def shared_vectors(rows: int, size: int, dtype: torch.dtype, device: torch.device) -> Vectors:
    """Shared memory on a device.

    Raises:
        OSError, RuntimeError: the memory cannot be had, or the device does not share any.
    """
    return SharedVectors(rows, size, dtype) if device.type == "cpu" else DeviceVectors(rows, size, dtype, device)


def sharded_vectors(rows: int, dtype: torch.dtype, shards: Sequence[Shard]) -> Vectors:
    """Shared memory of which each device has its part; in one part, it is that device's as a whole.

    Raises:
        OSError, RuntimeError: the memory cannot be had, or a device does not share any. None is kept.
    """
    with ExitStack() as made:
        parts: list[Vectors] = []
        for shard in shards:
            parts.append(shared_vectors(rows, shard.size, dtype, shard.device))
            made.callback(parts[-1].close)
        made.pop_all()
    return parts[0] if len(parts) == 1 else ShardedVectors(parts)


class SharedVectors:
    """Those on the CPU.

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


_opened: list[Tensor] = []
"""What this process has been handed. It keeps all until it ends, so that torch never counts any of it as given back."""


class DeviceVectors:
    """Those on a CUDA device. The parent must outlive its children, or end them first.

    Torch keeps memory that was handed over until a counter in a file of /dev/shm says that nobody has it. A child that
    is killed counts nothing down, and the memory would stay for good. So it is handed over once, with a count of one,
    whichever children open it and whatever becomes of them, and `close` takes that one back.

    A child must see the same devices under the same numbers, as those of the fork server do: they have the parent's
    environment. CUDA does not let the process itself open what it hands over.

    Raises:
        RuntimeError: the memory cannot be had, or the device does not share any.
    """

    def __init__(self, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            _take_plain_segments()
        self.tensor: Tensor = torch.zeros(rows, size, dtype=dtype, device=device)
        self._handed_over: Any = reduce_tensor(self.tensor)  # type: ignore[no-untyped-call]
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device, "handed_over": self._handed_over}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.device = state["device"]
        self._handed_over = open_it, arguments = state["handed_over"]
        self._closed = True
        self.tensor = open_it(*arguments)
        _opened.append(self.tensor)

    def close(self) -> None:
        """As in `Vectors`. Safe to call twice."""
        if not self._closed and self.device.type == "cuda":
            *_, counter, offset, _event, _event_needed = self._handed_over[1]
            give_back: Any = torch.UntypedStorage._release_ipc_counter
            give_back(counter, offset, device=self.device)
        self._closed = True


class ShardedVectors:
    """Those in parts.

    Args:
        parts: (rows, size of the part) each, in their order.
    """

    def __init__(self, parts: Sequence[Vectors]) -> None:
        self.parts = parts
        self.tensor: Tensor = ShardedTensor([part.tensor for part in parts])

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.parts = state["parts"]
        self.tensor = ShardedTensor([part.tensor for part in self.parts])

    def close(self) -> None:
        """As in `Vectors`."""
        for part in self.parts:
            part.close()


def _take_plain_segments() -> None:
    """From now on this process takes device memory from CUDA as a whole, whatever the environment says.

    A child can open expandable segments only if it may trace its parent, which most systems forbid. What children take
    for themselves stays as the environment has it.
    """
    settings = "".join(os.environ.get(name, "") for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"))
    if "expandable_segments" in settings:
        torch._C._accelerator_setAllocatorSettings("expandable_segments:False")
