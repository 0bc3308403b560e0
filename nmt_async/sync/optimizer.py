"""The server's step on the flat parameter vector: clipping, Adam, moving average.

Adam is torch's fused one (Kingma & Ba 2015, algorithm 1) on one flat parameter: the function, since the class imports
torch's compiler when it is made, which takes a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam's constants, the clipping norm (0: none) and the moving average's weight of the newest (0: none)."""

    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    clip_norm: float = 1.0
    smoothing: float = 0.0


class FlatOptimizer:
    """Adam's state for a flat vector, and the moving average of the parameters.

    Args:
        initial: the parameters (size,) at the beginning.
    """

    def __init__(self, initial: Tensor, settings: OptimizerSettings) -> None:
        self.settings = settings
        self._tensors = {
            "step": torch.tensor(0.0), "moment1": torch.zeros_like(initial), "moment2": torch.zeros_like(initial),
        }  # fmt: skip
        self.average = initial.detach().clone() if settings.smoothing else None

    @torch.no_grad()
    def step(self, parameters: Tensor, total: Tensor, tokens: int, learning_rate: float) -> float:
        """Changes ``parameters`` (size,) by the gradient ``total`` (size,) that is summed over ``tokens``.

        Clipping acts on the gradient per token. ``total`` is overwritten.

        Returns:
            The norm of the gradient per token before clipping.
        """
        norm = float(torch.linalg.vector_norm(total)) / tokens
        limit = self.settings.clip_norm
        total.mul_((limit / norm if limit and norm > limit else 1.0) / tokens)
        one, two, steps = self._tensors["moment1"], self._tensors["moment2"], self._tensors["step"]
        adam(
            [parameters], [total], [one], [two], [], [steps], fused=True, lr=torch.tensor(learning_rate),
            beta1=self.settings.beta1, beta2=self.settings.beta2, eps=self.settings.epsilon, weight_decay=0.0,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        if self.average is not None:
            self.average.lerp_(parameters, self._newest_weight())
        return norm

    def _newest_weight(self) -> float:
        """The moving average's weight of the newest parameters: larger at first, as in Marian."""
        updates = float(self._tensors["step"])
        return max(self.settings.smoothing, 1.0 - (updates + 1.0) / (updates + 10.0))

    def state(self) -> dict[str, Tensor]:
        """The tensors a checkpoint stores, by name; not copied."""
        return self._tensors if self.average is None else {**self._tensors, "average": self.average}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            KeyError: a tensor is absent.
        """
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
