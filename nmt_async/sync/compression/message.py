"""What crosses, and the slots of memory in which it lies: a dense vector, or the numbers of some places.

A message is read by the server as it lies in its slot. It is added to a sum without a float32 copy of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.sync.compression.settings import PushSettings

CHUNK = 1 << 18
"""Numbers that are converted at once; torch makes a copy in the sum's type of all that it is given at once."""

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""By the names of `DTYPES`."""


def add_to(total: Tensor, message: Tensor) -> None:
    """Adds ``message`` to ``total``, (size,), float32, in place."""
    if message.dtype == total.dtype:
        total.add_(message)
        return
    for begin in range(0, len(total), CHUNK):
        total[begin : begin + CHUNK].add_(message[begin : begin + CHUNK])


def subtract_from(total: Tensor, message: Tensor) -> None:
    """Takes ``message`` off ``total``, (size,), float32, in place."""
    for begin in range(0, len(total), CHUNK):
        total[begin : begin + CHUNK].sub_(message[begin : begin + CHUNK])


def dense(message: Tensor) -> Tensor:
    """The message as a float32 vector (size,); itself if it is one."""
    return message.float()


@dataclass(frozen=True)
class Form:
    """How a push lies in memory.

    Attributes:
        size: of the gradient.
        dtype: of its numbers.
    """

    size: int
    dtype: torch.dtype = torch.float32

    @property
    def bytes(self) -> int:
        """Of a slot."""
        return self.size * self.dtype.itemsize


def form_of(settings: PushSettings, size: int) -> Form:
    """The form of the pushes of gradients of ``size``."""
    return Form(size, TYPES[settings.dtype])


@dataclass(frozen=True)
class Slot:
    """Where one worker puts a compressed push, and its residual before and after it.

    Attributes:
        values: (size,), the numbers that cross.
        before: (size,), float32, what earlier pushes left behind; to be read only.
        after: (size,), float32, what is left behind after this one. It counts once the push was accepted.
    """

    values: Tensor
    before: Tensor
    after: Tensor


Room = Tensor | Slot
"""Where a worker puts a push: a vector (size,) for one that crosses whole."""


class Slots:
    """Memory for a push of each worker.

    Args:
        values: (workers, size), in the type in which numbers cross.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @classmethod
    def of(cls, form: Form, workers: int) -> Slots:
        """In memory of this process."""
        return cls(torch.zeros(workers, form.size, dtype=form.dtype))

    def __len__(self) -> int:
        return len(self.values)

    def room(self, worker: int, residuals: Tensor | None, row: int) -> Room:
        """Where a worker puts its next push.

        Args:
            residuals: (2 * workers, size); None where pushes cross whole.
            row: of them, that of the worker that counts.
        """
        values = self.values[worker]
        return values if residuals is None else Slot(values, residuals[row], residuals[row ^ 1])

    def message(self, worker: int) -> Tensor:
        """The worker's push."""
        return self.values[worker]

    def grown(self, workers: int) -> Slots:
        """With room for so many workers at least, and what lies in these."""
        more = max(0, workers - len(self))
        return Slots(torch.cat([self.values, self.values.new_zeros(more, self.values.shape[1])]))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores, not copied."""
        return {"slots": self.values}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            LookupError, RuntimeError: it is not what `state` gives.
        """
        self.values.copy_(tensors["slots"])
