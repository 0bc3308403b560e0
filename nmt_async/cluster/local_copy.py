"""A worker's own copy of the parameters: what it does with it between a pull and its push.

Both methods here were made for workers that keep a copy for long. Here a copy begins anew at each pull. So what a
worker pushes stays a function of the parameters that it pulled, its residual, the batch, the rate and the number of
pieces, and comes out alike in another worker, after a resume and in a replay.

**Local gradients** (Aji, Heafield & Bogoychev 2019, D19-1373). Where only the largest numbers of a gradient cross, a
worker's own small ones reach nobody for a while. In the work each node steps its copy with G - S + L: the sum of what
all nodes sent, without what it sent itself, plus its own whole gradient. The copies drift apart, and are averaged now
and then. With plain gradient descent of rate η, the terms L - S of all steps so far add up to the node's residual r, so
its copy is that of all others moved by -η r. There is a server here, and a pull brings the parameters that all share.
So the copy of a worker is

θ - η d(r),

where the worker's residual r counts what it has not sent. Nothing drifts, and nothing is to be averaged. For SGD,
d(r) = r / T / (1 - μ): the distance that it moves the parameters in the end as a part of an update of T tokens, with
momentum μ. T is estimated as the tokens of the batch times the pushes of an update. Steps of other optimizers do not
depend on the gradient's scale; for these, d(r) is r with a root mean square of 1 in each parameter matrix, so that the
copy is one step ahead in the residual's direction.

**Local optimizers** (Bogoychev, Junczys-Dowmunt, Heafield & Aji 2018, D18-1332). Where a push sums several batches, the
worker steps its copy after each of them with that batch's gradient, clipped as in the server, at the run's rate. What
it pushes is the sum of the gradients. In the work, the local optimizer keeps its state as long as the worker runs. Here
it begins anew at each pull, for the reason above. So Adam's first step is one of about the rate for every parameter,
whatever the gradient's scale is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.settings import LocalGradients, PushSettings
from nmt_async.sync.optimizers.flat import FlatOptimizer


class LocalCopy:
    """The parameters on which a worker computes, where they are not those that it pulled as they lie there.

    Args:
        layout: of the parameters.
        device: where it computes.
        settings: what it does with them.

    Attributes:
        vector: (size,).
    """

    def __init__(self, layout: FlatLayout, device: torch.device, settings: PushSettings) -> None:
        self.layout = layout
        self.settings = settings
        self.vector = torch.zeros(layout.size, device=device)
        local = settings.local_optimizer
        self._optimizer = FlatOptimizer(self.vector, local) if local is not None else None
        self._rate = 0.0

    def begin(self, pulled: Tensor, rate: float, tokens: int, residual: Tensor | None) -> None:
        """Makes the copy anew.

        Args:
            pulled: (size,), the parameters, on any device.
            rate: the run's.
            tokens: target tokens of the batch that is to be computed.
            residual: (size,), what the worker has not sent, if anything stays behind.
        """
        self.vector.copy_(pulled)
        self._rate = rate
        if self.settings.local_gradients is not None and residual is not None:
            ahead(
                self.vector, residual.to(self.vector.device), rate, tokens, self.settings.local_gradients, self.layout
            )
        if self._optimizer is not None:
            for tensor in self._optimizer.state().values():
                tensor.zero_()

    @torch.no_grad()
    def step(self, gradient: Tensor, tokens: int) -> None:
        """The local optimizer's step by ``gradient`` (size,), summed over ``tokens``; it is overwritten."""
        assert self._optimizer is not None
        self._optimizer.step(self.vector, gradient, tokens, self._rate)


@torch.no_grad()
def ahead(
    parameters: Tensor, residual: Tensor, rate: float, tokens: int, settings: LocalGradients, layout: FlatLayout
) -> None:
    """Moves ``parameters`` (size,) to where they would be, had the worker's ``residual`` (size,) been sent.

    Args:
        tokens: target tokens of a push.
    """
    if settings.descent is not None:
        scale = rate * settings.descent / (settings.pushes * tokens)
        parameters.add_(residual, alpha=-scale)
        return
    for place in layout.places:
        part = residual[place.begin : place.end]
        length = float(torch.linalg.vector_norm(part)) / math.sqrt(len(part))
        if length > 0.0:
            parameters[place.begin : place.end].add_(part, alpha=-rate / length)
