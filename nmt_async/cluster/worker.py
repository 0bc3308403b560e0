"""The worker: computes the gradient of one batch, the same wherever and whenever it runs, and its process.

A batch's dropout depends on the run's seed and the batch's name, not on the worker; so a batch gives the same
gradient in any worker, after a death, and in a replay.

A batch that memory does not hold is computed in pieces and their gradients summed: the same sum over its tokens up to
rounding, though with other draws of dropout. It begins anew with the batch's seed each time, so the gradient is a
function of the parameters, the batch and the number of pieces, whatever was tried before. The journal has that number.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn

from nmt_async.cluster.local_copy import LocalCopy
from nmt_async.cluster.memory import CPU, Memory
from nmt_async.cluster.task import Computed, Task
from nmt_async.model.build import build_unfilled
from nmt_async.model.configuration import FLOAT32, ModelConfiguration
from nmt_async.model.kernels import Arithmetic, compute_with, kernels_for
from nmt_async.model.loss import training_loss
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.dropping import largest
from nmt_async.sync.compression.error_feedback import Compressed, compress
from nmt_async.sync.compression.message import Room, Slot, form_of
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData


def dropout_seed(seed: int, batch: BatchId) -> int:
    """The seed of torch's generators for one batch."""
    return _hashed(f"{seed} {batch[0]} {batch[1]}")


def sample_seed(seed: int, batch: BatchId) -> int:
    """That of the sample from which it is estimated which numbers of the batch's gradient cross."""
    return _hashed(f"sample {seed} {batch[0]} {batch[1]}")


def _hashed(text: str) -> int:
    """63 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


MEMORY_SIGNS = (
    "not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory", "std::bad_alloc",
    "STATUS_ALLOC_FAILED", "could not create a primitive", "could not execute a primitive",
)  # fmt: skip
"""How torch and what it calls say that there is no memory, where they have no type for it."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device, or the process, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_SIGNS)


class Abandoned(Exception):
    """The gradient under way means nothing any more."""


def _never() -> bool:
    return False


class Worker:
    """Computes gradients of one model on one device.

    Args:
        model: on ``device``; its parameters are bound to others at each batch.
        seed: the run's.
        label_smoothing: of the training loss.
        device: where the model is.
        most: padded tokens to compute at once; 0: no limit is known.
        push: how a push is made of a gradient.
        kernels: that it computes with (`nmt_async.model.kernels`); None: those for the device.
        precision: in which it multiplies matrices.
        vectors: the devices on which the parameters and the pushes lie.

    Attributes:
        most: lowered when memory fails, to the largest piece for which it did not.
    """

    def __init__(
        self, model: nn.Module, seed: int, label_smoothing: float, device: torch.device, most: int = 0,
        push: PushSettings = WHOLE, kernels: str | None = None, precision: str = FLOAT32,
        vectors: Sequence[torch.device] = (CPU,),
    ) -> None:  # fmt: skip
        self.model = model.train()
        self.compute_with(Arithmetic(kernels_for(device, kernels), precision))
        self.layout = FlatLayout(model)
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.device = device
        self.most = most
        self.push = push
        self.form = form_of(push, self.layout.size)
        self._void: Callable[[], bool] = _never
        self._parameters = list(model.parameters())
        # Vectors elsewhere are copied in and out, as a whole or, where several devices own a part, part by part. On
        # its own device they are used in place, unless the worker changes the parameters.
        self._copied = tuple(vectors) != (device,)
        self._copy = LocalCopy(self.layout, device, push) if self._copied or push.own_copy else None
        self._steps = push.local_optimizer is not None
        self._part = torch.zeros(self.layout.size, device=device) if self._steps else None
        # Where a gradient is whole before it is copied or compressed; in place the slot's own memory serves.
        self._whole = torch.zeros(self.layout.size, device=device) if self._copied else None

    def compute_with(self, arithmetic: Arithmetic) -> None:
        """Computes so from here on."""
        self.arithmetic = arithmetic
        compute_with(self.model, arithmetic)

    def compute(
        self, parameters: Tensor, gradient: Room, parts: Sequence[Batch], key: BatchId, pieces: int = 1,
        rate: float = 0.0, void: Callable[[], bool] = _never,
    ) -> Computed:  # fmt: skip
        """Writes the gradient of a batch, summed over its target tokens, into ``gradient``.

        Args:
            parameters: (size,), read only.
            gradient: a vector (size,), zero in the layout's gaps, as are the residuals of a `Slot`; all else that
                stands there is overwritten.
            parts: of the batch, at least one, computed one after another.
            key: the batch's name.
            pieces: in which to compute each part at least; more where memory is short.
            rate: the run's learning rate, for what the worker does with a copy of its own.
            void: whether the gradient means nothing any more; asked before each forward and each backward pass.

        Raises:
            Abandoned: it does not. What stands in ``gradient`` stays.
        """
        self._void = void
        target_tokens, source_tokens = sum(part.target_tokens for part in parts), sum(p.source_tokens for p in parts)
        residual = gradient.before if isinstance(gradient, Slot) else None
        load = partial(self._load, parameters, rate, target_tokens, residual)
        batches = [part.to(self.device) for part in parts] if self.device.type != "cpu" else parts
        pieces = self._fitting(batches, pieces)
        while (losses := self._attempt(cut := _cut(batches, pieces), key, load)) is None:
            pieces *= 2
            self.most = max(map(_largest, _cut(batches, pieces)))
        made = self._push(gradient, key)
        return Computed(
            _added(losses), target_tokens, source_tokens, made.norm, sum(map(len, cut)), most=self.most,
            entries=made.entries, bytes=self.form.sent(made.entries),
        )  # fmt: skip

    def _push(self, room: Room, key: BatchId) -> Compressed:
        """Makes a push of the gradients at the parameters."""
        if isinstance(room, Tensor):
            gradient = room if self._whole is None else self._whole
            self._store(gradient)
            if gradient is not room:
                room.copy_(gradient)
            return Compressed(float(torch.linalg.vector_norm(gradient)), 0)
        whole = room.after if self._whole is None else self._whole
        self._store(whole)
        return compress(whole, room, self._picker(key))

    def _picker(self, key: BatchId) -> Callable[[Tensor], Tensor]:
        """What says which numbers of a batch's gradient cross."""
        generator = torch.Generator().manual_seed(sample_seed(self.seed, key))
        blocks = [(place.begin, place.end) for place in self.layout.places] if self.push.per_matrix else []
        most = self.form.columns
        return partial(largest, drop=self.push.drop, most=most, generator=generator, blocks=blocks)

    def _fitting(self, batches: Sequence[Batch], pieces: int) -> int:
        """That many pieces of each, or more, so that none is larger than memory was found to hold."""
        while (
            self.most
            and max(map(_largest, cut := _cut(batches, pieces))) > self.most
            and not all(map(_indivisible, cut))
        ):
            pieces *= 2
        return pieces

    def _attempt(self, cut: Sequence[Sequence[Batch]], key: BatchId, load: Callable[[], None]) -> Losses | None:
        """The losses, with the gradients left at the parameters; None where memory does not hold one of the pieces.

        Args:
            cut: the pieces of each part.
            load: makes the parameters what they are at the begin.
        """
        load()
        torch.manual_seed(dropout_seed(self.seed, key))
        self._forget()
        try:
            return self._sum_stepping(cut) if self._steps else self._sum([piece for part in cut for piece in part])
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or all(map(_indivisible, cut)):
                raise
        # Outside the handler, so that the failed attempt's tensors are free.
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _load(self, parameters: Tensor, rate: float, tokens: int, residual: Tensor | None) -> None:
        if self._copy is not None:
            self._copy.begin(parameters, rate, tokens, residual)
            parameters = self._copy.vector
        if self._parameters[0].data_ptr() != parameters.data_ptr():
            self.layout.bind(self.model, parameters)

    def _backward(self, batch: Batch) -> Tensor:
        """Loss summed over tokens, zero-dimensional; the gradient is left at the parameters."""
        self._go_on()
        loss = training_loss(self.model, batch, self.label_smoothing, self.arithmetic)
        self._go_on()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _go_on(self) -> None:
        if self._void():
            raise Abandoned

    def _sum(self, batches: Sequence[Batch]) -> Losses:
        """As `_backward`, for all of them."""
        if len(batches) == 1:
            return [self._backward(batches[0])]
        losses, total = [], self._nothing()
        for batch in batches:
            losses.append(self._backward(batch))
            self._take_to(total)
        self._give_back(total)
        return losses

    def _sum_stepping(self, cut: Sequence[Sequence[Batch]]) -> Losses:
        """As `_sum`, for the pieces of each part; after each part but the last the worker's copy is stepped."""
        assert self._copy is not None
        assert self._part is not None
        losses, total = [], self._nothing()
        for number, pieces in enumerate(cut, 1):
            losses.append(_added(self._sum(pieces)))
            if number < len(cut):
                self._store(self._part)
                self._copy.step(self._part, sum(piece.target_tokens for piece in pieces))
            self._take_to(total)
        self._give_back(total)
        return losses

    def _nothing(self) -> list[Tensor | None]:
        """A sum of gradients, of each parameter, in which nothing is yet."""
        return [None] * len(self._parameters)

    def _take_to(self, total: list[Tensor | None]) -> None:
        """Adds the gradients at the parameters to ``total``, and leaves none there."""
        for index, parameter in enumerate(self._parameters):
            grown, new = total[index], parameter.grad
            total[index] = new if grown is None else grown if new is None else grown.add_(new)
        self._forget()

    def _give_back(self, total: list[Tensor | None]) -> None:
        for parameter, grown in zip(self._parameters, total, strict=True):
            parameter.grad = grown

    @torch.no_grad()
    def _store(self, gradient: Tensor) -> None:
        views, gradients = self.layout.views(gradient), [parameter.grad for parameter in self._parameters]
        given = [(view, grad) for view, grad in zip(views, gradients, strict=True) if grad is not None]
        for view, grad in zip(views, gradients, strict=True):
            if grad is None:
                view.zero_()
        if self.device.type == "cpu":
            for view, grad in given:
                view.copy_(grad)
        elif given:  # a few kernels for all of them
            torch._foreach_copy_([view for view, _ in given], [grad for _, grad in given])


Losses = Sequence[Tensor | float]
"""Those of the pieces of a batch, of which those on a device are read when all work is queued."""


def _added(losses: Losses) -> float:
    total = 0.0
    for loss in losses:  # one after another: `sum` rounds in another way in newer versions of Python
        total += float(loss)
    return total


def _cut(batches: Sequence[Batch], pieces: int) -> list[list[Batch]]:
    """Each in so many pieces, or in as many as it has rows."""
    return [list(batch.pieces(pieces)) for batch in batches]


def _indivisible(batches: Sequence[Batch]) -> bool:
    return max(map(len, batches)) == 1


def _largest(batches: Sequence[Batch]) -> int:
    return max(batch.padded_tokens for batch in batches)


def pieces_of(rows: Sequence[int], total: int) -> int:
    """In how many pieces each part was computed, of parts with so many ``rows`` and ``total`` pieces of all."""
    pieces = 1
    while pieces < max(rows) and sum(min(pieces, count) for count in rows) < total:
        pieces += 1
    return pieces


LONGEST_ERROR, LONGEST_TRACE = 500, 3000
"""Characters of an exception that are told. A pipe takes what is below 16 KiB in one piece, so never a half of it."""


@dataclass(frozen=True)
class WorkerSettings:
    """What all workers of a run are told when they start.

    Attributes:
        data: the prepared folder.
        configuration: of the model.
        seed: of the run.
        label_smoothing: of the training loss.
        threads: of each worker on the CPU.
        push: how a push is made of a gradient.
        kernels: that workers compute with; None: those for their device.
        precision: in which they multiply matrices.
    """

    data: Path
    configuration: ModelConfiguration
    seed: int
    label_smoothing: float
    threads: int
    push: PushSettings = WHOLE
    kernels: str | None = None
    precision: str = FLOAT32


@dataclass(frozen=True)
class Ready:
    """The worker has loaded everything and waits for its first task."""


@dataclass(frozen=True)
class Left:
    """The worker has left its task, as it was told.

    Attributes:
        seconds: spent on it.
        waited: seconds between what it did before and this task.
    """

    seconds: float
    waited: float


@dataclass(frozen=True)
class Failed:
    """The worker ends with an exception.

    Attributes:
        error: its one-line text.
        trace: the traceback, for the log.
    """

    error: str
    trace: str


def build_worker(
    settings: WorkerSettings, device: torch.device, most: int = 0, vectors: Sequence[torch.device] = (CPU,)
) -> Worker:
    """A worker with a model of its own; the model's parameters mean nothing until its first task.

    Args:
        most, vectors: as in `Worker`.
    """
    model = build_unfilled(settings.configuration).to(device)
    return Worker(
        model, settings.seed, settings.label_smoothing, device, most, settings.push, settings.kernels,
        settings.precision, vectors,
    )  # fmt: skip


def _is_void(stop: Tensor, number: int) -> bool:
    return int(stop) >= number


def run_worker(index: int, settings: WorkerSettings, device: str, memory: Memory, most: int, pipe: Connection) -> None:
    """The body of the process of worker ``index``: it reads the ring's buffers, and writes its own slot only and that
    of its residuals which does not count.

    Args:
        most: padded tokens that it computes at once, as its predecessor found; 0: no limit is known.
    """
    try:
        place, streams = torch.device(device), memory.streams
        if place.type == "cuda":
            torch.cuda.set_device(place)
        worker = build_worker(settings, place, most, memory.devices)
        data = PreparedData.open(settings.data).train
        slots, stop = memory.pushes(), memory.left_tasks[index]
        pipe.send(Ready())
        idle_since = time.monotonic()
        while True:
            task: Task = pipe.recv()
            begin = time.monotonic()
            streams.follow(index)
            room = slots.room(index, memory.residual_rows, task.residual)
            parameters, parts = memory.ring.tensor[task.buffer], data.batches(task.parts)
            reading = time.monotonic() - begin
            void = partial(_is_void, stop, task.number)
            try:
                computed = worker.compute(parameters, room, parts, task.batch, rate=task.rate, void=void)
            except Abandoned:
                computed = None
            streams.finish()  # what it leaves is not read any more either
            end = time.monotonic()
            seconds, waited = end - begin, begin - idle_since
            if computed is None:
                pipe.send(Left(seconds, waited))
            else:
                pipe.send(replace(computed, seconds=seconds, waited=waited, reading=reading))
            idle_since = end
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except Exception as error:
        pipe.send(
            Failed(
                f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR],
                traceback.format_exc()[-LONGEST_TRACE:],
            )
        )
        raise SystemExit(1) from None
