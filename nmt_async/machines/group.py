"""The machines of a run, joined by torch's Gloo: each has a rank, and what one says all hear.

Everything crosses the network as it is, unencrypted. Nothing that comes from another machine is executed: no object is
unpickled.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import BroadcastOptions, ProcessGroupGloo, Store

from nmt_async.errors import RunFailure
from nmt_async.machines.watch import Watch
from nmt_async.sync.between.outer import summed

LOOK = datetime.timedelta(seconds=0.5)
"""How often a machine that waits for others looks whether they are still there."""

JOINING = datetime.timedelta(minutes=2)
"""In which each machine connects to each other one."""

NO_TIMEOUT = datetime.timedelta(days=7)
"""Of Gloo itself. A slow machine may take its time; `Watch` finds out which one is gone, and much sooner."""


class MachineLost(RunFailure):
    """A machine of the run is gone, so that what needs all of them cannot go on."""


class Group(Protocol):
    """What machines that train together can do, each at the same time as the others.

    Attributes:
        rank: which of them this is.
        size: how many there are.
    """

    rank: int
    size: int

    def gather(self, data: bytes) -> list[bytes]:
        """What each of them says, by rank."""

    def add(self, vector: Tensor) -> None:
        """``vector`` (size,) becomes the sum of those of all, the same bits everywhere.

        A sum of 16-bit vectors is made in 32 bits, by rank, and rounded once.
        """

    def spread(self, vector: Tensor, source: int) -> None:
        """``vector`` (size,) becomes that of the machine ``source``."""

    def give_up(self) -> None:
        """Whoever waits for the others, in any thread, soon waits no more: `MachineLost` is raised there."""

    def close(self) -> None:
        """Leaves the others."""


class Alone:
    """One machine, which has nobody to wait for."""

    rank, size = 0, 1

    def gather(self, data: bytes) -> list[bytes]:
        """What it says."""
        return [data]

    def add(self, vector: Tensor) -> None:
        """Nothing to add."""

    def spread(self, vector: Tensor, source: int) -> None:
        """Nothing to do."""

    def give_up(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nobody to leave."""


class GlooGroup:
    """Machines that are joined over TCP.

    Args:
        store: where they have met.
        rank, size: which of how many this is.
        address: of this machine, as the others reach it; only there does it listen.
        watch: says which machine is gone.

    Raises:
        MachineLost: one of the others did not come.
    """

    def __init__(
        self, store: Store, rank: int, size: int, address: str, watch: Watch
    ) -> None:  # fmt: skip
        self.rank, self.size = rank, size
        self._watch = watch
        self._given_up = threading.Event()
        engine: Any = ProcessGroupGloo  # torch's stubs lack half of it
        options = engine._Options()
        options._timeout = JOINING
        try:
            options._devices = [engine.create_device(hostname=address)]
            self._gloo = engine(store, rank, size, options)
            self._gloo.set_timeout(NO_TIMEOUT)
        except RuntimeError as error:
            raise self._lost(error) from None

    def gather(self, data: bytes) -> list[bytes]:
        """As in `Group`: first how much each has to say, then that."""
        mine = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._wait(lambda: self._gloo.allgather([lengths], [torch.tensor([len(data)])]))
        counts = [int(length) for length in lengths]
        room = max(*counts, 1)
        padded = torch.zeros(room, dtype=torch.uint8)
        padded[: len(data)] = mine[: len(data)]
        said = [torch.zeros(room, dtype=torch.uint8) for _ in range(self.size)]
        self._wait(lambda: self._gloo.allgather([said], [padded]))
        return [bytes(text[:count].numpy()) for text, count in zip(said, counts, strict=True)]

    def add(self, vector: Tensor) -> None:
        """As in `Group`."""
        if vector.dtype is torch.bfloat16:
            self._add_rounded(vector)
        else:
            self._wait(lambda: self._gloo.allreduce([vector]))

    def _add_rounded(self, vector: Tensor) -> None:
        """Each machine sums a part of the vector for all: as many bytes cross as in an all-reduce of 16 bits."""
        part = -(-len(vector) // self.size)
        mine = torch.zeros(self.size, part, dtype=vector.dtype)
        mine.view(-1)[: len(vector)] = vector
        theirs = torch.empty_like(mine)  # this machine's part, as each of them has it
        self._wait(lambda: self._gloo.alltoall_base(theirs.view(torch.uint8), mine.view(torch.uint8), [], []))
        total = summed(list(theirs))
        parts = [torch.empty(2 * part, dtype=torch.uint8) for _ in range(self.size)]
        self._wait(lambda: self._gloo.allgather([parts], [total.view(torch.uint8)]))
        vector.copy_(torch.cat(parts).view(vector.dtype)[: len(vector)])

    def spread(self, vector: Tensor, source: int) -> None:
        """As in `Group`."""
        options = BroadcastOptions()
        options.rootRank, options.rootTensor = source, 0
        self._wait(lambda: self._gloo.broadcast([vector], options))

    def _wait(self, begin: Callable[[], Any]) -> None:
        """Until what ``begin`` begins is done.

        Raises:
            MachineLost: it cannot be.
        """
        try:
            work = begin()
            while not work.is_completed():
                try:
                    work.wait(LOOK)
                except RuntimeError:
                    # Not done yet; or it has just ended, and how it did is said below.
                    if not work.is_completed() and (self._given_up.is_set() or self._watch.missing()):
                        raise
            work.wait()
        except RuntimeError as error:
            raise self._lost(error) from None

    def _lost(self, error: RuntimeError) -> MachineLost:
        return MachineLost(self._watch.explain(str(error)))

    def give_up(self) -> None:
        """As in `Group`."""
        self._given_up.set()

    def close(self) -> None:
        """Leaves the others. What of an exchange is under way stays unfinished, and so must the memory that it uses."""
        # A Gloo group that is taken down waits for the others, who may hang: it is never taken down but ends with the
        # process.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._gloo))
        self._watch.close()


def gather_values(group: Group, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Plain values of every machine, by rank."""
    return [json.loads(text) for text in group.gather(json.dumps(values).encode())]


def spread_state(
    group: Group, source: int, values: dict[str, Any] | None, tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain values and tensors by name, of the machine ``source``, to all.

    Args:
        values, tensors: there.
    """
    here = group.rank == source
    shapes = [[name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()]
    said = json.dumps({"values": values, "tensors": shapes} if here else {}).encode()
    told = json.loads(group.gather(said)[source])
    spread = {}
    for name, shape, dtype in told["tensors"]:
        tensor = tensors[name].cpu().contiguous() if here else torch.empty(shape, dtype=_dtype(dtype))
        group.spread(tensor.view(-1).view(torch.uint8) if tensor.dim() else tensor, source)
        spread[name] = tensor
    return told["values"], spread


def _dtype(name: str) -> torch.dtype:
    """Raises ValueError where no tensor of a checkpoint has such a type."""
    known: Sequence[torch.dtype] = (
        torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool,
    )  # fmt: skip
    for dtype in known:
        if str(dtype) == f"torch.{name}":
            return dtype
    raise ValueError(f"{name} is no type of a tensor")
