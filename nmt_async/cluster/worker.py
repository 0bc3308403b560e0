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

from nmt_async.cluster.task import Computed, Task
from nmt_async.model.build import build_unfilled
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData


def dropout_seed(seed: int, batch: BatchId) -> int:
    """The seed of torch's generators for one batch: 63 bits of a hash of run seed, epoch and number."""
    text = f"{seed} {batch[0]} {batch[1]}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


MEMORY_SIGNS = (
    "not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory", "std::bad_alloc",
    "STATUS_ALLOC_FAILED",
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

    Attributes:
        most: lowered when memory fails, to the largest piece for which it did not.
    """

    def __init__(
        self, model: nn.Module, seed: int, label_smoothing: float, device: torch.device, most: int = 0
    ) -> None:
        self.model = model.train()
        self.layout = FlatLayout(model)
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.device = device
        self.most = most
        self._void: Callable[[], bool] = _never
        self._parameters = list(model.parameters())
        # On another device the vectors in shared memory are copied in and out; on the CPU they are used in place.
        self._copied = device.type != "cpu"
        self._local = torch.zeros(self.layout.size, device=device) if self._copied else None

    def compute(
        self, parameters: Tensor, gradient: Tensor, parts: Sequence[Batch], key: BatchId, pieces: int = 1,
        void: Callable[[], bool] = _never,
    ) -> Computed:  # fmt: skip
        """Writes the gradient of a batch, summed over its target tokens, into ``gradient``.

        Args:
            parameters: (size,), on the CPU, read only.
            gradient: (size,), on the CPU, zero in the layout's gaps; all else that stands there is overwritten.
            parts: of the batch, at least one, computed one after another.
            key: the batch's name.
            pieces: in which to compute each part at least; more where memory is short.
            void: whether the gradient means nothing any more; asked before each forward and each backward pass.

        Raises:
            Abandoned: it does not. What stands in ``gradient`` stays.
        """
        self._void = void
        self._load(parameters)
        batches = [part.to(self.device) for part in parts] if self._copied else parts
        pieces = self._fitting(batches, pieces)
        while (loss := self._attempt(cut := _cut(batches, pieces), key)) is None:
            pieces *= 2
            self.most = _largest(_cut(batches, pieces))
        self._store(gradient)
        norm = float(torch.linalg.vector_norm(gradient))
        target_tokens, source_tokens = sum(part.target_tokens for part in parts), sum(p.source_tokens for p in parts)
        return Computed(loss, target_tokens, source_tokens, norm, len(cut), most=self.most)

    def _fitting(self, batches: Sequence[Batch], pieces: int) -> int:
        """That many pieces of each, or more, so that none is larger than memory was found to hold."""
        while self.most and _largest(cut := _cut(batches, pieces)) > self.most and not _indivisible(cut):
            pieces *= 2
        return pieces

    def _attempt(self, batches: Sequence[Batch], key: BatchId) -> float | None:
        """The loss, with the gradients left at the parameters; None where memory does not hold one of ``batches``."""
        torch.manual_seed(dropout_seed(self.seed, key))
        self._forget()
        try:
            return self._sum(batches)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or _indivisible(batches):
                raise
        # Outside the handler, so that the failed attempt's tensors are free.
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _load(self, parameters: Tensor) -> None:
        if self._local is not None:
            self._local.copy_(parameters)
            parameters = self._local
        if self._parameters[0].data_ptr() != parameters.data_ptr():
            self.layout.bind(self.model, parameters)

    def _backward(self, batch: Batch) -> float:
        """Loss summed over tokens; the gradient is left at the parameters."""
        self._go_on()
        logits, targets = self.model(batch)
        loss = smoothed_cross_entropy(logits, targets, self.label_smoothing)
        self._go_on()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _go_on(self) -> None:
        if self._void():
            raise Abandoned

    def _sum(self, batches: Sequence[Batch]) -> float:
        """As `_backward`, for all of them."""
        if len(batches) == 1:
            return self._backward(batches[0])
        loss = 0.0
        total: list[Tensor | None] = [None] * len(self._parameters)
        for batch in batches:
            loss += self._backward(batch)
            for index, parameter in enumerate(self._parameters):
                grown, new = total[index], parameter.grad
                total[index] = new if grown is None else grown if new is None else grown.add_(new)
            self._forget()
        for parameter, grown in zip(self._parameters, total, strict=True):
            parameter.grad = grown
        return loss

    @torch.no_grad()
    def _store(self, gradient: Tensor) -> None:
        for view, parameter in zip(self.layout.views(gradient), self._parameters, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)


def _cut(batches: Sequence[Batch], pieces: int) -> list[Batch]:
    """Each in so many pieces, or in as many as it has rows."""
    return [piece for batch in batches for piece in batch.pieces(pieces)]


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
    """

    data: Path
    configuration: ModelConfiguration
    seed: int
    label_smoothing: float
    threads: int


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


def build_worker(settings: WorkerSettings, device: torch.device, most: int = 0) -> Worker:
    """A worker with a model of its own; the model's parameters mean nothing until its first task."""
    model = build_unfilled(settings.configuration).to(device)
    return Worker(model, settings.seed, settings.label_smoothing, device, most)


def task_numbers(stops: SharedVectors) -> Tensor:
    """The shared matrix (workers, 2) of float32 as (workers,) whole numbers: one is written and read at once."""
    return stops.tensor.view(torch.int64)[:, 0]


def _is_void(stop: Tensor, number: int) -> bool:
    return int(stop) >= number


def run_worker(
    index: int,
    settings: WorkerSettings,
    device: str,
    ring: SharedVectors,
    slots: SharedVectors,
    stops: SharedVectors,
    most: int,
    pipe: Connection,
) -> None:
    """The body of the process of worker ``index``: it reads the ring's buffers and writes its own slot only.

    Args:
        stops: (workers, 2), of each worker the number of the latest task that means nothing; see `task_numbers`.
        most: padded tokens that it computes at once, as its predecessor found; 0: no limit is known.
    """
    try:
        worker = build_worker(settings, torch.device(device), most)
        data = PreparedData.open(settings.data).train
        slot, stop = slots.tensor[index], task_numbers(stops)[index]
        pipe.send(Ready())
        idle_since = time.monotonic()
        while True:
            task: Task = pipe.recv()
            begin = time.monotonic()
            parts, void = data.batches(task.parts), partial(_is_void, stop, task.number)
            try:
                computed = worker.compute(ring.tensor[task.buffer], slot, parts, task.batch, void=void)
            except Abandoned:
                computed = None
            end = time.monotonic()
            seconds, waited = end - begin, begin - idle_since
            pipe.send(Left(seconds, waited) if computed is None else replace(computed, seconds=seconds, waited=waited))
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
