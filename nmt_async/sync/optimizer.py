"""The server's step on the flat parameter vector: clipping, Adam, moving average.

Adam is torch's fused one (Kingma & Ba 2015, algorithm 1) on one flat parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
        self._parameter = nn.Parameter(initial.detach())
        self._adam = torch.optim.Adam(
            [self._parameter],
            lr=torch.tensor(0.0),
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
        )
        self._adam.state[self._parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(initial),
            "exp_avg_sq": torch.zeros_like(initial),
        }
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
        self._parameter.data = parameters
        self._parameter.grad = total
        group = self._adam.param_groups[0]
        group["lr"].fill_(learning_rate)
        self._adam.step()
        self._parameter.grad = None
        if self.average is not None:
            self.average.lerp_(parameters, self._newest_weight())
        return norm

    def _newest_weight(self) -> float:
        """The moving average's weight of the newest parameters: larger at first, as in Marian."""
        updates = float(self._state["step"])
        return max(self.settings.smoothing, 1.0 - (updates + 1.0) / (updates + 10.0))

    @property
    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._adam.state[self._parameter]
        return state

    def state(self) -> dict[str, Tensor]:
        """The tensors a checkpoint stores, by name; not copied."""
        tensors = {"step": self._state["step"], "moment1": self._state["exp_avg"], "moment2": self._state["exp_avg_sq"]}
        if self.average is not None:
            tensors["average"] = self.average
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            KeyError: a tensor is absent.
        """
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
