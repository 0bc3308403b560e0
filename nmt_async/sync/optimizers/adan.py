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
from nmt_async.sync.optimizers.step import Matrix, Step, zeros


class Adan(Step):
    """It remembers three moments and the gradient before."""

    REMEMBERS = "Adan's moments and the gradient before"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self.tensors = {name: zeros(like) for name in ("moment1", "change", "moment2", "gradient")}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`."""
        one, two, three = self.settings.adan_betas
        first, change, second, before = (self.tensors[key] for key in ("moment1", "change", "moment2", "gradient"))
        # Each vector takes the place of one that is not needed any more.
        difference = torch.sub(gradient, before if updates else gradient, out=before)
        first.lerp_(gradient, 1.0 - one)
        change.lerp_(difference, 1.0 - two)
        ahead = torch.add(gradient, difference, alpha=two, out=difference)
        second.mul_(three).addcmul_(ahead, ahead, value=1.0 - three)
        before.copy_(gradient)
        corrected = [1.0 - beta ** (updates + 1) for beta in (one, two, three)]
        scale = torch.sqrt(second, out=gradient).div_(math.sqrt(corrected[2])).add_(self.settings.adan_epsilon)
        parameters.addcdiv_(first, scale, value=-rate / corrected[0])
        parameters.addcdiv_(change, scale, value=-rate * two / corrected[1])
        parameters.div_(1.0 + rate * self.settings.weight_decay)
