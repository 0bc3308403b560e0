"""The memory that a server and the processes of its workers share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nmt_async.process.shared_memory import SharedVectors
from nmt_async.sync.compression.message import INDEX, Form, Slots, form_of
from nmt_async.sync.compression.settings import WHOLE, PushSettings


@dataclass
class Memory:
    """What parent and children share: the ring's buffers, a slot for a push of each worker, the residuals, and which
    task each worker is to leave.

    Args:
        workers: how many there are.
        size: of a gradient.
        push: how a push is made of it.

    Attributes:
        ring: (workers + 1, size).
        slots, places: a row for each worker, the numbers that cross and where only some do, their places; see `Form`.
        residuals: (2 * workers, size) where pushes leave something behind.
        stops: (workers, 2); see `left_tasks`.
    """

    workers: int
    size: int
    push: PushSettings = WHOLE
    ring: SharedVectors = field(init=False)
    slots: SharedVectors = field(init=False)
    stops: SharedVectors = field(init=False)
    places: SharedVectors | None = field(init=False, default=None)
    residuals: SharedVectors | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        form = self.form
        self.ring = SharedVectors(self.workers + 1, self.size)
        self.slots = SharedVectors(self.workers, form.columns, form.dtype)
        if form.most is not None:
            self.places = SharedVectors(self.workers, form.columns, INDEX)
        if self.push.compressed:
            self.residuals = SharedVectors(2 * self.workers, self.size)
        self.stops = SharedVectors(self.workers, 2)

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
        """Gives the descriptors back."""
        for vectors in (self.ring, self.slots, self.places, self.residuals, self.stops):
            if vectors is not None:
                vectors.close()


def bytes_shared(workers: int, size: int, push: PushSettings) -> int:
    """Of a `Memory`."""
    residuals = 2 * workers if push.compressed else 0
    return 4 * size * (workers + 1 + residuals) + workers * (form_of(push, size).bytes + 8)
