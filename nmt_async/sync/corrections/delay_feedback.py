"""Error feedback for delay (Zmushko et al. 2026, arXiv 2606.30634), around the step of any optimizer.

Let u_t be the optimizer's whole step at update t, with its rate and its decay. Under a delay of one update, u_t comes
of a gradient at the parameters before the latest ones. The update is then

θ_(t+1) = θ_t - u_t - c (u_t - u_(t-1)), with c = 1.

Where it comes from: u_t is what should have been applied one update ago, when u_(t-1) was applied in its place. Their
difference is the error that was made, and is made good now; u_t itself stands for the step that is not known yet.

With a delay of τ updates, u_t should have been applied τ updates ago, and u_(t-1) was applied in its place and in that
of the τ - 1 steps after it. The same account gives u_t + τ (u_t - u_(t-1)). The pushes of one update are of several
ages here, so that τ is their mean, weighted by tokens. Where no push is stale, nothing is added.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nmt_async.sync.corrections.correction import Applied, Correction


class DelayFeedback(Correction):
    """Makes good what the steps before were wrong by, because their gradients were stale.

    Args:
        like: a vector (size,) of the kind of the parameters.
        share: c: how much of the error.
    """

    watches_updates = True

    def __init__(self, like: Tensor, share: float) -> None:
        super().__init__()
        self.share = share
        self.tensors = {"feedback_step": torch.zeros_like(like)}

    def applied(self, update: Applied) -> None:
        """As in `Correction`."""
        before, step = self.tensors["feedback_step"], update.parameters - update.before
        if update.staleness:
            update.parameters.add_(step.sub(before), alpha=self.share * update.staleness)
        before.copy_(step)
