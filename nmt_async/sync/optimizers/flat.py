"""The server's step on the flat parameter vector: clipping, an optimizer's step, the moving average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.sync.optimizers.adam import Adam
from nmt_async.sync.optimizers.adan import Adan
from nmt_async.sync.optimizers.lion import Lion
from nmt_async.sync.optimizers.muon import Muon
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.sgd import SGD
from nmt_async.sync.optimizers.step import Matrix, Step

STEPS: dict[str, type[Step]] = {"adam": Adam, "adamw": Adam, "muon": Muon, "adan": Adan, "lion": Lion, "sgd": SGD}
"""By the names of `OPTIMIZERS`."""


@dataclass(frozen=True)
class OptimizerMemory:
    """What an optimizer needs beside parameters and gradient, in vectors of their size.

    Attributes:
        remembered: from one update to the next.
        working: to make an update.
        words: what is remembered.
    """

    remembered: float
    working: float
    words: str


def memory_of(like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix] = ()) -> OptimizerMemory:
    """What the optimizer of a vector will need; the moving average is not counted.

    Args:
        like: (size,); where it takes no memory, nothing here does.
    """
    step, size = STEPS[settings.name](like, settings, matrices), len(like)
    remembered = sum(tensor.numel() for tensor in step.tensors.values())
    return OptimizerMemory(remembered / size, step.working / size, step.REMEMBERS if remembered else "")


class FlatOptimizer:
    """An optimizer's state for a flat vector, and the moving average of the parameters.

    Args:
        initial: the parameters (size,) at the beginning.
        matrices: hidden matrices in it, in its order; only Muon asks.
        step: taken in the place of that of the optimizer that the settings name.
    """

    def __init__(
        self, initial: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix] = (), step: Step | None = None
    ) -> None:
        self.settings = settings
        self._updates = torch.tensor(0.0)
        self._step = STEPS[settings.name](initial, settings, matrices) if step is None else step
        self.average = initial.detach().clone() if settings.smoothing else None

    @torch.no_grad()
    def step(
        self, parameters: Tensor, total: Tensor, tokens: int, learning_rate: float,
        correct: Callable[[], None] = lambda: None, parts: Sequence[Tensor] = (),
    ) -> float:  # fmt: skip
        """Changes ``parameters`` (size,) by the gradient ``total`` (size,) that is summed over ``tokens``.

        Clipping acts on the gradient per token. ``total`` is overwritten.

        Args:
            correct: changes ``parameters`` further, before they enter the moving average.
            parts: vectors (size,) that are parts of ``total``, if the step asks for them; they are scaled as it is.

        Returns:
            The norm of the gradient per token before clipping.
        """
        norm = float(torch.linalg.vector_norm(total)) / tokens
        limit = self.settings.clip_norm
        scale = (limit / norm if limit and norm > limit else 1.0) / tokens
        for vector in (total, *parts):
            vector.mul_(scale)
        self._step.take(parameters, total, learning_rate, int(self._updates))
        correct()
        self._updates += 1
        if self.average is not None:
            self.average.lerp_(parameters, self._newest_weight())
        return norm

    @property
    def operations(self) -> int:
        """Of one step, as in `Step`: what it costs beside reading and writing the vectors."""
        return self._step.operations

    def _newest_weight(self) -> float:
        """The moving average's weight of the newest parameters: larger at first, as in Marian."""
        updates = float(self._updates)
        return max(self.settings.smoothing, 1.0 - (updates + 1.0) / (updates + 10.0))

    def state(self) -> dict[str, Tensor]:
        """The tensors a checkpoint stores, by name; not copied."""
        tensors = {"step": self._updates, **self._step.tensors}
        return tensors if self.average is None else {**tensors, "average": self.average}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            KeyError: a tensor is absent.
        """
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
