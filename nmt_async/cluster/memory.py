"""The memory that a server and the processes of its workers share, and the order in which they use it.

It lies where the server computes: on the CPU, on a CUDA device, or on several, each of which owns a part of every
vector. There the ring's buffers, the slots and the residuals are device memory that all of these processes see, so
nothing crosses the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nmt_async.process.sharded_tensor import Shard
from nmt_async.process.shared_memory import SharedVectors, Vectors, sharded_vectors, shared_vectors
from nmt_async.process.streams import Streams, streams_on
from nmt_async.sync.compression.message import INDEX, Form, Slots, form_of
from nmt_async.sync.compression.settings import WHOLE, PushSettings

CPU = torch.device("cpu")


@dataclass
class Memory:
    """What parent and children share: the ring's buffers, a slot for a push of each worker, the residuals, and which
    task each worker is to leave.

    Args:
        workers: how many there are.
        size: of a gradient.
        push: how a push is made of it.
        shards: which device owns which part of it all but of `stops`; none: all lies on the CPU.

    Attributes:
        ring: (workers + 1, size).
        slots, places: a row for each worker, the numbers that cross and where only some do, their places; see `Form`.
            Where only some cross, both lie on the first device.
        residuals: (2 * workers, size) where pushes leave something behind.
        stops: (workers, 2), on the CPU; see `left_tasks`.
        streams: the order of what the server and each worker do with all of this.

    Raises:
        OSError, RuntimeError: the memory cannot be had, or a device does not share any. None is kept.
    """

    workers: int
    size: int
    push: PushSettings = WHOLE
    shards: Sequence[Shard] = ()
    ring: Vectors = field(init=False)
    slots: Vectors = field(init=False)
    stops: SharedVectors = field(init=False)
    streams: Streams = field(init=False)
    places: Vectors | None = field(init=False, default=None)
    residuals: Vectors | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.shards = tuple(self.shards) or (Shard(CPU, 0, self.size),)
        form = self.form
        with ExitStack() as made:

            def kept(vectors: Vectors) -> Vectors:
                made.callback(vectors.close)
                return vectors

            self.ring = kept(sharded_vectors(self.workers + 1, torch.float32, self.shards))
            if form.most is None:
                self.slots = kept(sharded_vectors(self.workers, form.dtype, self.shards))
            else:
                first = self.devices[0]
                self.slots = kept(shared_vectors(self.workers, form.columns, form.dtype, first))
                self.places = kept(shared_vectors(self.workers, form.columns, INDEX, first))
            if self.push.compressed:
                self.residuals = kept(sharded_vectors(2 * self.workers, torch.float32, self.shards))
            self.stops = SharedVectors(self.workers, 2)
            made.callback(self.stops.close)
            self.streams = streams_on(self.devices, self.workers)
            made.pop_all()

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """That own a part, in the order of the parts."""
        return tuple(shard.device for shard in self.shards)

    @property
    def form(self) -> Form:
        """Of a slot."""
        return form_of(self.push, self.size)

    @property
    def residual_rows(self) -> Tensor | None:
        """(2 * workers, size), where pushes leave something behind."""
        return None if self.residuals is None else self.residuals.tensor

    @property
    def left_tasks(self) -> Tensor:
        """(workers,), int64, of each worker the number of the latest task that it is to leave: the bits of two float32
        numbers, since one whole number is written and read at once."""
        return self.stops.tensor.view(torch.int64)[:, 0]

    def pushes(self) -> Slots:
        """The slots, as this process sees them."""
        return Slots(self.form, self.slots.tensor, None if self.places is None else self.places.tensor)

    def close(self) -> None:
        """Gives the memory back, once no worker lives."""
        for vectors in (self.ring, self.slots, self.places, self.residuals, self.stops):
            if vectors is not None:
                vectors.close()


def bytes_shared(workers: int, size: int, push: PushSettings) -> int:
    """Of a `Memory`."""
    residuals = 2 * workers if push.compressed else 0
    return 4 * size * (workers + 1 + residuals) + workers * (form_of(push, size).bytes + 8)
