"""Delay compensation (Zheng et al. 2017, arXiv 1609.08326): the gradient where the parameters are now, to first order.

The derivative of the gradient is guessed by the square of each element, so that

g' = g + λ g g (θ_now - θ_pulled), for each element,

where g is the gradient per token: the guess holds for a mean, not for a sum. With an adaptive λ (their DC-ASGD-a),
λ is divided by √(s + ε), s being the running mean of g² over all pushes: s ← 0.95 s + 0.05 g².
"""

from __future__ import annotations

import torch
from torch import Tensor

from nmt_async.sync.corrections.correction import Arrival, Correction

KEPT, EPSILON = 0.95, 1e-7


class DelayCompensated(Correction):
    """Adds what the gradient has changed by meanwhile, as far as its own square tells.

    Args:
        like: a vector (size,) of the kind of the parameters.
        strength: λ; the authors' 0.04, or 2 where it is adaptive.
        adaptive: whether it is divided by the running magnitude of each element.
    """

    looks_at_parameters = True

    def __init__(self, like: Tensor, strength: float, adaptive: bool) -> None:
        super().__init__()
        self.strength = strength
        self.adaptive = adaptive
        if adaptive:
            self.tensors = {"compensation_square": torch.zeros_like(like)}

    def weight(self, arrival: Arrival) -> float | Tensor:
        """As in `Correction`: g' / g."""
        mean = arrival.gradient / arrival.tokens
        if self.adaptive:
            square = self.tensors["compensation_square"]
            square.mul_(KEPT).addcmul_(mean, mean, value=1.0 - KEPT)
        if arrival.staleness == 0:
            return 1.0
        assert arrival.pulled is not None
        change = mean.mul_(arrival.current - arrival.pulled).mul_(self.strength)
        if self.adaptive:
            change.div_((square + EPSILON).sqrt_())
        return change.add_(1.0)
