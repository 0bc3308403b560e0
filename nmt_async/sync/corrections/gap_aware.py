"""Gap-aware (Barkai, Hakimi & Schuster 2020, arXiv 1909.10802), for each parameter by itself.

The *gap* of a push is how far a parameter has gone since the push was pulled, in units of C, what one update moves it
by at the highest rate. Each element of the gradient is divided by

G = 1 + |θ_now - θ_pulled| / C;  C = η_max √(mean of (Δθ / η)²)

Δθ is what an update has moved the parameter by, η its rate, and the mean a running one. For gradient descent Δθ / η is
the momentum, whose running magnitude the authors' code takes. What a step is here depends on the optimizer, so the mean
is that of the steps themselves. A push that is stale by updates that moved nothing is left as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nmt_async.sync.corrections.correction import Applied, Arrival, Correction

KEPT = 0.999
"""How much of the running mean an update keeps."""


class GapAware(Correction):
    """Divides each element of a stale gradient by how far its parameter has gone meanwhile.

    Args:
        like: a vector (size,) of the kind of the parameters.
    """

    looks_at_parameters = True
    watches_updates = True

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.tensors = {
            "gap_step2": torch.zeros_like(like), "gap_updates": torch.tensor(0.0), "gap_rate": torch.tensor(0.0)
        }  # fmt: skip

    def weight(self, arrival: Arrival) -> float | Tensor:
        """As in `Correction`."""
        if arrival.staleness == 0:
            return 1.0
        assert arrival.pulled is not None
        gap = (arrival.current - arrival.pulled).abs_()
        return gap.div_(self._typical_step()).add_(1.0).reciprocal_()

    def _typical_step(self) -> Tensor:
        """C, (size,), never 0: of a parameter that has not moved, the gap is 0 too."""
        square, updates, rate = self.tensors.values()
        started = 1.0 - KEPT ** float(updates)
        step = square.div(started) if started else square.clone()
        return step.sqrt_().mul_(float(rate)).clamp_(min=torch.finfo(step.dtype).tiny)

    def applied(self, update: Applied) -> None:
        """As in `Correction`; an update at the rate 0 says nothing of steps."""
        if not update.rate:
            return
        square, updates, highest = self.tensors.values()
        step = (update.parameters - update.before).div_(update.rate)
        square.mul_(KEPT).addcmul_(step, step, value=1.0 - KEPT)
        updates += 1
        highest.clamp_(min=update.rate)
