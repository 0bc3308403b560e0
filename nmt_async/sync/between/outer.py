"""The outer step of machines that update their own parameters several times between two exchanges.

Each machine makes K updates of its own. Then the mean of what they have moved is an outer gradient, and one step of SGD
with Nesterov momentum moves the parameters that all go on from (DiLoCo, Douillard et al. 2023, arXiv 2311.08105,
algorithm 1). A rate of 1 without momentum is the mean of the machines' parameters (local SGD, Stich 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nmt_async.sync.between.outer_settings import OuterSettings

NAME = "outer_momentum"
"""Of the momentum, in a checkpoint."""


class OuterStep:
    """The parameters that all machines have last agreed on, and the momentum of their steps.

    Args:
        settings: of the step.
        parameters: (size,) at the beginning; copied.
    """

    def __init__(self, settings: OuterSettings, parameters: Tensor) -> None:
        self.settings = settings
        self.parameters = parameters.detach().clone()
        self.momentum = torch.zeros_like(self.parameters) if settings.momentum else None

    def moved(self, parameters: Tensor, into: Tensor) -> Tensor:
        """How far a machine has moved against the direction of ``parameters`` (size,), written ``into`` (size,)."""
        return torch.sub(self.parameters, parameters, out=into)

    @torch.no_grad()
    def step(self, total: Tensor, machines: int) -> Tensor:
        """The parameters (size,) that all go on from.

        Args:
            total: (size,), what so many machines have moved, summed; it is overwritten.
        """
        gradient = total.div_(machines)
        if self.momentum is not None:
            self.momentum.mul_(self.settings.momentum).add_(gradient)
            gradient.add_(self.momentum, alpha=self.settings.momentum)
        return self.parameters.sub_(gradient, alpha=self.settings.rate)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint stores beside the parameters; not copied."""
        return {} if self.momentum is None else {NAME: self.momentum}

    def restore(self, parameters: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Takes up where `tensors` was taken; a run that had no outer momentum begins with none."""
        self.parameters.copy_(parameters)
        if self.momentum is not None:
            if NAME in tensors:
                self.momentum.copy_(tensors[NAME])
            else:
                self.momentum.zero_()
