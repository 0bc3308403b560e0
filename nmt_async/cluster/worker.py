"""The worker: computes the gradient of one batch, the same wherever and whenever it runs.

A batch's dropout depends on the run's seed and the batch's name, not on the worker; so a batch gives the same
gradient in any worker, after a death, and in a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nmt_async.cluster.task import Computed
from nmt_async.model.flat import FlatLayout
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.sync.push import BatchKey
from nmt_async.text.batch import Batch


def dropout_seed(seed: int, batch: BatchKey) -> int:
    """The seed of torch's generators for one batch: 63 bits of a hash of run seed, epoch and number."""
    text = f"{seed} {batch[0]} {batch[1]}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Worker:
    """Computes gradients of one model on one device.

    Args:
        model: on ``device``; its parameters are bound to others at each batch.
        seed: the run's.
        label_smoothing: of the training loss.
        device: where the model is.
    """

    def __init__(self, model: nn.Module, seed: int, label_smoothing: float, device: torch.device) -> None:
        self.model = model.train()
        self.layout = FlatLayout(model)
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.device = device
        self._parameters = list(model.parameters())
        # On another device the vectors in shared memory are copied in and out; on the CPU they are used in place.
        self._copied = device.type != "cpu"
        self._local = torch.zeros(self.layout.size, device=device) if self._copied else None

    def compute(self, parameters: Tensor, gradient: Tensor, parts: Sequence[Batch], key: BatchKey) -> Computed:
        """Writes the gradient of a batch, summed over its target tokens, into ``gradient``.

        Args:
            parameters: (size,), on the CPU, read only.
            gradient: (size,), on the CPU, zero in the layout's gaps; all else that stands there is overwritten.
            parts: of the batch, at least one, computed one after another.
            key: the batch's name.
        """
        self._load(parameters)
        torch.manual_seed(dropout_seed(self.seed, key))
        self._forget()
        loss, pieces = self._sum([part.to(self.device) for part in parts] if self._copied else parts)
        self._store(gradient)
        norm = float(torch.linalg.vector_norm(gradient))
        target_tokens = sum(part.target_tokens for part in parts)
        return Computed(loss, target_tokens, sum(part.source_tokens for part in parts), norm, pieces)

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _load(self, parameters: Tensor) -> None:
        if self._local is not None:
            self._local.copy_(parameters)
            parameters = self._local
        if self._parameters[0].data_ptr() != parameters.data_ptr():
            self.layout.bind(self.model, parameters)

    def _accumulate(self, batch: Batch) -> tuple[float, int]:
        """Loss summed over tokens and number of pieces; halves a batch that the device cannot hold."""
        try:
            logits, targets = self.model(batch)
            loss = smoothed_cross_entropy(logits, targets, self.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach()), 1
        except torch.OutOfMemoryError:
            if len(batch) < 2:
                raise
        # Outside the handler, so that the failed attempt's tensors are free.
        self._forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._sum(batch.halves())

    def _sum(self, batches: Sequence[Batch]) -> tuple[float, int]:
        """As `_accumulate`, for all of them; an attempt at one that fails leaves the others' sum alone."""
        if len(batches) == 1:
            return self._accumulate(batches[0])
        loss, pieces = 0.0, 0
        total: list[Tensor | None] = [None] * len(self._parameters)
        for batch in batches:
            batch_loss, batch_pieces = self._accumulate(batch)
            loss, pieces = loss + batch_loss, pieces + batch_pieces
            for index, parameter in enumerate(self._parameters):
                grown, new = total[index], parameter.grad
                total[index] = new if grown is None else grown if new is None else grown.add_(new)
            self._forget()
        for parameter, grown in zip(self._parameters, total, strict=True):
            parameter.grad = grown
        return loss, pieces

    @torch.no_grad()
    def _store(self, gradient: Tensor) -> None:
        for view, parameter in zip(self.layout.views(gradient), self._parameters, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
