"""The memory that a server and the processes of its workers share, and the order in which they use it.

It lies where the server computes: on the CPU, or on a CUDA device. There the ring's buffers, the slots and the
residuals are device memory that all of these processes see, so nothing crosses the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nmt_async.process.shared_memory import SharedVectors, Vectors, shared_vectors
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
        device: on which all of it lies but `stops`.

    Attributes:
        ring: (workers + 1, size).
        slots, places: a row for each worker, the numbers that cross and where only some do, their places; see `Form`.
        residuals: (2 * workers, size) where pushes leave something behind.
        stops: (workers, 2), on the CPU; see `left_tasks`.
        streams: the order of what the server and each worker do with all of this.

    Raises:
        OSError, RuntimeError: the memory cannot be had, or the device does not share any.
    """

    workers: int
    size: int
    push: PushSettings = WHOLE
    device: torch.device = CPU
    ring: Vectors = field(init=False)
    slots: Vectors = field(init=False)
    stops: SharedVectors = field(init=False)
    streams: Streams = field(init=False)
    places: Vectors | None = field(init=False, default=None)
    residuals: Vectors | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        form, device = self.form, self.device
        self.ring = shared_vectors(self.workers + 1, self.size, torch.float32, device)
        self.slots = shared_vectors(self.workers, form.columns, form.dtype, device)
        if form.most is not None:
            self.places = shared_vectors(self.workers, form.columns, INDEX, device)
        if self.push.compressed:
            self.residuals = shared_vectors(2 * self.workers, self.size, torch.float32, device)
        self.stops = SharedVectors(self.workers, 2)
        self.streams = streams_on(device, self.workers)

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
