"""The outer step of machines that update their own parameters several times between two exchanges.

Each machine makes K updates of its own. Then the mean of what they have moved is an outer gradient, and one step of SGD
with Nesterov momentum moves the parameters that all go on from (DiLoCo, Douillard et al. 2023, arXiv 2311.08105,
algorithm 1). A rate of 1 without momentum is the mean of the machines' parameters (local SGD, Stich 2019).

The vector may be cut into P fragments, of which one is exchanged after every K / P updates, while the machines go on
(Streaming DiLoCo, Douillard et al. 2025, arXiv 2501.18512, algorithm 2). Theirs mixes what a machine has made of a
fragment meanwhile with what the exchange came to, so that a part of it is lost. Here the machine keeps all of it beside
the step (as in CoCoD-SGD, Shen et al. 2019, arXiv 1906.12043): each update is in one outer gradient of each fragment.

Differences may cross in 16 bits. They are summed in 32 bits, and the sum crosses in 16 bits again. What a machine loses
by rounding its own stays in its own parameters, and so is in the next difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nmt_async.sync.between.outer_settings import OuterSettings

NAME = "outer_momentum"
"""Of the momentum, in a checkpoint."""


def summed(vectors: Sequence[Tensor]) -> Tensor:
    """The sum (size,) of what machines bring, by rank; of 16-bit vectors it is made in 32 bits and rounded once."""
    total = vectors[0].float()
    for vector in vectors[1:]:
        total = total + vector
    return total.to(vectors[0].dtype)


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
        self._dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32

    def part(self, fragment: int | None) -> slice:
        """Of the vector, what the fragment of this number from 0 is; None: all of it."""
        if fragment is None:
            return slice(None)
        size, count = len(self.parameters), self.settings.fragments
        return slice(size * fragment // count, size * (fragment + 1) // count)

    def crossing(self, fragment: int | None) -> float:
        """Of a vector of 32-bit numbers, the share of it that crosses with a fragment; None: with all of it."""
        exact = fragment is None and self.settings.fragments > 1
        half = self._dtype is torch.bfloat16 and not exact
        return (0.5 if half else 1.0) / (1 if fragment is None else self.settings.fragments)

    def moved(self, parameters: Tensor, fragment: int | None = None) -> Tensor:
        """How far a machine has moved a fragment against the direction of ``parameters`` (size,), as it crosses.

        All of several fragments is only exchanged where machines are to agree exactly: it crosses in 32 bits.
        """
        part = self.part(fragment)
        difference = self.parameters[part] - parameters[part]
        exact = fragment is None and self.settings.fragments > 1
        return difference if exact else difference.to(self._dtype)

    @torch.no_grad()
    def step(self, total: Tensor, machines: int, fragment: int | None = None) -> Tensor:
        """The parameters (part,) that all go on from.

        Args:
            total: (part,), what so many machines have moved, summed; it may be overwritten.
            fragment: which of several; None: all of one. All of several become the mean of the machines' parameters:
                it is no time for a step, since some of them have just made one.
        """
        part = self.part(fragment)
        gradient = total.float().div_(machines)
        if fragment is None and self.settings.fragments > 1:
            return self.parameters.sub_(gradient)
        if self.momentum is not None:
            momentum = self.momentum[part].mul_(self.settings.momentum).add_(gradient)
            gradient.add_(momentum, alpha=self.settings.momentum)
        return self.parameters[part].sub_(gradient, alpha=self.settings.rate)

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
