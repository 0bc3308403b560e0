"""Gradient descent with momentum: of Polyak (1964), or looking ahead as Nesterov's (Sutskever et al. 2013).

v ← μ v + g;  θ ← θ - η v, or with Nesterov θ ← θ - η (g + μ v).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step


class SGD(Step):
    """As torch's SGD without dampening; it remembers nothing without momentum."""

    REMEMBERS = "the momentum"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self.tensors = {"momentum": torch.zeros_like(like)} if settings.momentum else {}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:  # noqa: ARG002
        """As in `Step`."""
        self.decay(parameters, rate)
        if self.tensors:
            momentum = self.tensors["momentum"].mul_(self.settings.momentum).add_(gradient)
            gradient = gradient.add_(momentum, alpha=self.settings.momentum) if self.settings.nesterov else momentum
        parameters.add_(gradient, alpha=-rate)
