"""Workers compute on parameters as they will be when their push arrives: weight prediction.

A push is s updates old when it is applied. If an update resembles the one before it, as it does where momentum is high,
the parameters will then be about

θ_t + s (θ_t - θ_(t-1)),

and that is what a pull gives. This is SpecTrain (Chen, Yang & Cheng 2018, arXiv 1809.02839, equation 4) with the whole
step of any optimizer in the place of momentum times rate (Guan et al. 2023, PipeOptim, arXiv 2312.00839). Theirs is a
pipeline, in which s is known for each stage; here s is about the mean staleness to expect, unless another is given.
With one worker and gradient descent with momentum μ, s = μ is Nesterov's momentum.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nmt_async.sync.corrections.look_ahead import LookAhead


class Prediction(LookAhead):
    """The parameters some updates ahead.

    Args:
        initial: the parameters (size,) at the beginning.
        updates: s.
    """

    def __init__(self, initial: Tensor, updates: float) -> None:
        super().__init__(initial)
        self.updates = updates
        self.before = initial.clone()

    def updating(self) -> Tensor:
        """As in `LookAhead`."""
        self.before.copy_(self.parameters)
        return self.parameters

    def move(self, parameters: Tensor) -> None:
        """As in `LookAhead`: the next step is expected to be like the latest, wherever it begins."""
        self.before.add_(parameters - self.parameters)
        super().move(parameters)

    def write(self, buffer: Tensor) -> None:
        """As in `LookAhead`."""
        buffer.copy_(self.parameters).add_(self.parameters - self.before, alpha=self.updates)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """As in `LookAhead`."""
        return {"before": self.before}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As in `LookAhead`. A run that had one worker predicted nothing, and its state has nothing of this."""
        self.before.copy_(tensors.get("before", self.parameters))
