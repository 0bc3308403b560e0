"""What crosses, and the slots of memory in which it lies: a dense vector, or the numbers of some places.

The server reads a message as it lies in its slot, and adds it to a sum without a float32 copy of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.sync.compression.settings import PushSettings

CHUNK = 1 << 18
"""Numbers that are converted at once on a CPU, where torch makes a copy in the sum's type of all that it is given."""

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""By the names of `DTYPES`."""

INDEX = torch.int32
"""In which places cross; so a gradient has at most 2^31 - 1 of them."""

SLACK = 2.0
"""A slot has room for so many times the share that is to cross: the threshold is estimated."""


@dataclass(frozen=True)
class Sparse:
    """Numbers of some places of a vector, which is zero elsewhere.

    Attributes:
        indices: (entries,), each place once.
        values: (entries,).
        size: of the vector.
    """

    indices: Tensor
    values: Tensor
    size: int

    def clone(self) -> Sparse:
        """A copy of its own."""
        return Sparse(self.indices.clone(), self.values.clone(), self.size)


Message = Tensor | Sparse
"""What crosses of a gradient (size,), in any type."""


def add_to(total: Tensor, message: Message) -> None:
    """Adds ``message`` to ``total``, (size,), float32, in place."""
    if isinstance(message, Sparse):
        total.index_add_(0, message.indices, message.values.to(total.dtype))
    elif message.dtype == total.dtype:
        total.add_(message)
    else:
        for here, there in _chunks(total, message):
            here.add_(there)


def _chunks(total: Tensor, message: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Two vectors (size,) side by side, as much at a time as is converted at once."""
    if not total.is_cpu:
        yield total, message
        return
    for begin in range(0, len(total), CHUNK):
        yield total[begin : begin + CHUNK], message[begin : begin + CHUNK]


def copy_to(total: Tensor, message: Message) -> None:
    """Makes ``total``, (size,), float32, what ``message`` says."""
    if isinstance(message, Sparse):
        add_to(total.zero_(), message)
    else:
        total.copy_(message)


def subtract_from(total: Tensor, message: Tensor) -> None:
    """Takes ``message`` off ``total``, (size,), float32, in place."""
    for here, there in _chunks(total, message):
        here.sub_(there)


def dense(message: Message, like: Tensor | None = None) -> Tensor:
    """The message as a float32 vector (size,); itself if it is one.

    Args:
        like: a float32 vector (size,) of the place where it is to be; None: where the message is.
    """
    if isinstance(message, Sparse):
        vector = message.values.new_zeros(message.size, dtype=torch.float32) if like is None else torch.zeros_like(like)
        add_to(vector, message)
        return vector
    return message.float()


@dataclass(frozen=True)
class Form:
    """How a push lies in memory.

    Attributes:
        size: of the gradient.
        dtype: of its numbers.
        most: numbers that cross at most; None: all, in their order.
    """

    size: int
    dtype: torch.dtype = torch.float32
    most: int | None = None

    @property
    def columns(self) -> int:
        """Numbers in a slot."""
        return self.size if self.most is None else self.most

    def sent(self, entries: int) -> int:
        """Bytes of a push with so many numbers; of one in which all cross, whatever is said."""
        if self.most is None:
            return self.size * self.dtype.itemsize
        return entries * (INDEX.itemsize + self.dtype.itemsize)

    @property
    def bytes(self) -> int:
        """Of a slot."""
        return self.sent(self.columns)


def form_of(settings: PushSettings, size: int) -> Form:
    """The form of the pushes of gradients of ``size``."""
    most = max(1, math.ceil(_room_share(settings) * size)) if settings.drop else None
    return Form(size, TYPES[settings.dtype], most)


def slot_bytes(settings: PushSettings) -> float:
    """Of a slot, for each number of a gradient; the last number is made a whole one."""
    number = TYPES[settings.dtype].itemsize
    return _room_share(settings) * (INDEX.itemsize + number) if settings.drop else float(number)


def _room_share(settings: PushSettings) -> float:
    """Of the numbers, for how many there is room in a slot where some cross."""
    return min(1.0, SLACK * (1.0 - settings.drop))


@dataclass(frozen=True)
class Slot:
    """Where one worker puts a compressed push, and its residual before and after it.

    Attributes:
        values: the numbers that cross: (size,), or as many as may be.
        indices: their places, as many as may be; None where all cross, in their order.
        before: (size,), float32, what earlier pushes left behind; to be read only.
        after: (size,), float32, what is left behind after this one. It counts once the push was accepted.
    """

    values: Tensor
    indices: Tensor | None
    before: Tensor
    after: Tensor


Room = Tensor | Slot
"""Where a worker puts a push: a vector (size,) for one that crosses whole."""


class Slots:
    """Memory for a push of each worker.

    Args:
        form: of a push.
        values: (workers, columns), in the type in which numbers cross.
        indices: (workers, columns), where only some cross.
    """

    def __init__(self, form: Form, values: Tensor, indices: Tensor | None) -> None:
        self.form = form
        self.values = values
        self.indices = indices

    @classmethod
    def of(cls, form: Form, workers: int, like: Tensor | None = None) -> Slots:
        """In memory of this process, where ``like`` is; None: on the CPU."""
        like = torch.empty(0) if like is None else like
        shape = (workers, form.columns)
        indices = None if form.most is None else like.new_zeros(shape, dtype=INDEX)
        return cls(form, like.new_zeros(shape, dtype=form.dtype), indices)

    def __len__(self) -> int:
        return len(self.values)

    def room(self, worker: int, residuals: Tensor | None, row: int) -> Room:
        """Where a worker puts its next push.

        Args:
            residuals: (2 * workers, size); None where pushes cross whole.
            row: of them, that of the worker that counts.
        """
        values = self.values[worker]
        if residuals is None:
            return values
        indices = None if self.indices is None else self.indices[worker]
        return Slot(values, indices, residuals[row], residuals[row ^ 1])

    def message(self, worker: int, entries: int) -> Message:
        """The worker's push.

        Args:
            entries: the numbers that crossed, where only some do.

        Raises:
            ValueError: there is no room for as many.
        """
        values = self.values[worker]
        if self.indices is None:
            return values
        if not 0 <= entries <= len(values):
            raise ValueError(f"a push of {entries:,} numbers does not fit into a slot of {len(values):,}")
        return Sparse(self.indices[worker, :entries], values[:entries], self.form.size)

    def grown(self, workers: int) -> Slots:
        """With room for so many workers at least, and what lies in these."""
        grown = Slots.of(self.form, max(workers, len(self)), self.values)
        grown.values[: len(self)] = self.values
        if self.indices is not None and grown.indices is not None:
            grown.indices[: len(self)] = self.indices
        return grown

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores, not copied."""
        return {"slots": self.values, **({} if self.indices is None else {"slot_indices": self.indices})}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            LookupError, RuntimeError: it is not what `state` gives.
        """
        self.values.copy_(tensors["slots"])
        if self.indices is not None:
            self.indices.copy_(tensors["slot_indices"])
