"""Adan (Xie et al. 2022, arXiv 2208.06677, algorithm 1, without restarts): Nesterov momentum, element by element.

With δ = g - g_before (0 at first), and each β the share that is kept, as in the authors' code:

m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) δ;  n ← β3 n + (1 - β3) (g + β2 δ)²
θ ← (θ - η (m' + β2 v') / (√n' + ε)) / (1 + η λ), where a dash means corrected for the start as in Adam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step, stretches

NAMES = ("moment1", "change", "moment2", "gradient")
"""m, v, n and the gradient before."""


class Adan(Step):
    """It remembers three moments and the gradient before."""

    REMEMBERS = "Adan's moments and the gradient before"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self.tensors = {name: torch.zeros_like(like) for name in NAMES}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`."""
        one, two, three = self.settings.adan_betas
        corrected = [1.0 - beta ** (updates + 1) for beta in (one, two, three)]
        remembered = (self.tensors[name] for name in NAMES)
        for here, fresh, first, change, second, before in stretches(parameters, gradient, *remembered):
            difference = fresh - before if updates else torch.zeros_like(fresh)
            first.lerp_(fresh, 1.0 - one)
            change.lerp_(difference, 1.0 - two)
            ahead = difference.mul_(two).add_(fresh)
            second.mul_(three).addcmul_(ahead, ahead, value=1.0 - three)
            scale = second.sqrt().div_(math.sqrt(corrected[2])).add_(self.settings.adan_epsilon)
            here.addcdiv_(first, scale, value=-rate / corrected[0])
            here.addcdiv_(change, scale, value=-rate * two / corrected[1])
            if self.settings.weight_decay:
                here.div_(1.0 + rate * self.settings.weight_decay)
            before.copy_(fresh)
