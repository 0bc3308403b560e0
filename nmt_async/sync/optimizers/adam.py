"""Adam (Kingma & Ba 2015, algorithm 1), and AdamW, its form with decoupled weight decay (Loshchilov & Hutter 2019).

It is torch's fused one: the function, since the class imports torch's compiler when it is made, which takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix, Step


class Adam(Step):
    """Adam's step on the whole vector; ``weight_decay`` makes it AdamW."""

    REMEMBERS = "Adam's moments"

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:
        super().__init__(like, settings, matrices)
        self.tensors = {"moment1": torch.zeros_like(like), "moment2": torch.zeros_like(like)}

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`."""
        self.decay(parameters, rate)
        moments = self.tensors["moment1"], self.tensors["moment2"]
        adam_step([parameters], [gradient], [moments[0]], [moments[1]], rate, updates, self.settings)


def adam_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    rate: float,
    updates: int,
    settings: OptimizerSettings,
) -> None:
    """Adam's step on each of some vectors, with their moments.

    Args:
        updates: that were made before.
    """
    # Filled where they are: a number that is copied to a device would make this process wait for it.
    steps = [parameter.new_full((), float(updates)) for parameter in parameters]
    adam(
        parameters, gradients, first, second, [], steps, fused=True, lr=torch.tensor(rate), beta1=settings.beta1,
        beta2=settings.beta2, eps=settings.epsilon, weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip
