"""Lion (Chen et al. 2023, arXiv 2302.06675, program 1): the sign of a mix of momentum and gradient.

c = sign(β1 m + (1 - β1) g);  θ ← θ - η (c + λ θ);  m ← β2 m + (1 - β2) g.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step, stretches


class Lion(Step):
    """Every element moves by the rate, which is therefore a third to a tenth of Adam's."""

    REMEMBERS = "Lion's momentum"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self.tensors = {"momentum": torch.zeros_like(like)}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:  # noqa: ARG002
        """As in `Step`."""
        step, decay = self.settings.lion_betas
        for here, fresh, momentum in stretches(parameters, gradient, self.tensors["momentum"]):
            self.decay(here, rate)
            here.add_(fresh.lerp(momentum, step).sign_(), alpha=-rate)
            momentum.lerp_(fresh, 1.0 - decay)
