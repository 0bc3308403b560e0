"""DANA (Hakimi, Barkai, Gabel & Schuster 2019, arXiv 1907.11612): a momentum for each worker, and a look-ahead.

DANA-Zero. An update that holds a gradient g_i of worker i makes v_i ← γ v_i + g_i and θ ← θ - η v_i. A pull gives where
momentum alone will take the parameters, θ - η γ Σ_j v_j over all workers.

DANA-Slim. The worker sends γ v_i + g_i after v_i ← γ v_i + g_i, and the server applies that. Its parameters are then
the look-ahead of DANA-Zero, and a pull gives them as they are. The server keeps v_i and computes this for the worker,
since a worker may die, while its momentum belongs to the run.

With one worker, both are Nesterov's momentum. Here an update may sum pushes of several workers; g_i is then the part of
the clipped mean gradient that is worker i's, and each worker in the update takes its step.

Adam's first moment is such a momentum: m_i ← β1 m_i + (1 - β1) g_i, divided by 1 - β1^n for the n updates with a push
of worker i. The second moment is one, of the whole gradient; steps and look-ahead are divided by its root.

A run that goes on with fewer workers goes on with the momentum of all: that of worker i is added to worker i mod W, and
so is what its pushes added to the open round. New workers begin without momentum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nmt_async.sync.corrections.look_ahead import LookAhead
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Step


class WorkerMomentum(Step):
    """The step of an optimizer with momentum, by the momentum of those workers whose pushes an update holds.

    Args:
        like: a vector (size,) of the kind of the parameters.
        settings: of ``sgd``, ``adam`` or ``adamw``.
        workers: how many there are.
        slim: DANA-Slim.
    """

    def __init__(self, like: Tensor, settings: OptimizerSettings, workers: int, slim: bool) -> None:
        super().__init__(like, settings, ())
        self.slim = slim
        self.adaptive = settings.name != "sgd"
        self.kept = settings.beta1 if self.adaptive else settings.momentum
        self.momentum = like.new_zeros(workers, len(like))
        self.counts = [0] * workers
        self.rate = 0.0
        self.updates = 0
        if self.adaptive:
            self.tensors = {"moment2": torch.zeros_like(like)}
        self._alone: int | None = None
        self._round: list[int] = []
        self._sums: dict[int, Tensor] = {}

    # The open round: what of its sum is whose

    def add(self, worker: int, gradient: Tensor, total: Tensor, pushes: int) -> None:
        """A push is about to be added to the round's sum ``total`` (size,), which holds so many ``pushes``.

        As long as they are all of one worker, the sum is all that is needed.
        """
        if not pushes:
            self._alone, self._round = worker, [worker]
        elif self._alone is not None and worker != self._alone:
            self._put(self._alone, total)
            self._alone = None
        if self._alone is None:
            if worker in self._round:
                self._sums[worker].add_(gradient)
            else:
                self._put(worker, gradient)
                self._round.append(worker)

    def _put(self, worker: int, vector: Tensor) -> None:
        if worker in self._sums:
            self._sums[worker].copy_(vector)
        else:
            self._sums[worker] = vector.clone()

    @property
    def parts(self) -> list[Tensor]:
        """The sums (size,) of each worker in the round; none where the whole sum is one worker's."""
        return [] if self._alone is not None else [self._sums[worker] for worker in self._round]

    # The update

    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """As in `Step`; `parts` are by now parts of ``gradient``."""
        self.decay(parameters, rate)
        self.rate, self.updates = rate, updates + 1
        if self.adaptive:
            square = self.tensors["moment2"]
            square.mul_(self.settings.beta2).addcmul_(gradient, gradient, value=1.0 - self.settings.beta2)
        parts, scale = self.parts or [gradient], self._scale()
        fresh = 1.0 - self.kept if self.adaptive else 1.0
        for worker, part in zip(self._round, parts, strict=True):
            momentum = self.momentum[worker].mul_(self.kept).add_(part, alpha=fresh)
            self.counts[worker] += 1
            step = part.mul_(fresh).add_(momentum, alpha=self.kept) if self.slim else momentum
            self._go(parameters, worker, step, scale, -rate)
        self._alone, self._round = None, []

    def ahead(self, parameters: Tensor) -> None:
        """Moves ``parameters`` (size,) to where the momentum of all workers takes them, at the latest rate."""
        if not self.updates:
            return
        scale = self._scale()
        for worker, momentum in enumerate(self.momentum):
            self._go(parameters, worker, momentum, scale, -self.rate * self.kept)

    def _scale(self) -> Tensor | None:
        """What Adam's steps are divided by, (size,)."""
        if not self.adaptive:
            return None
        scale = self.tensors["moment2"].div(1.0 - self.settings.beta2**self.updates)
        return scale.sqrt_().add_(self.settings.epsilon)

    def _go(self, parameters: Tensor, worker: int, step: Tensor, scale: Tensor | None, by: float) -> None:
        if scale is None:
            parameters.add_(step, alpha=by)
        else:  # the momentum began at 0
            parameters.addcdiv_(step, scale, value=by / (1.0 - self.kept ** max(self.counts[worker], 1)))

    # What a checkpoint stores

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Plain values, and tensors by name, not copied: of workers, and of the open round."""
        values = {
            "counts": list(self.counts), "rate": self.rate, "updates": self.updates, "alone": self._alone,
            "round": list(self._round),
        }  # fmt: skip
        tensors = {"worker_momentum": self.momentum}
        if self.parts:
            tensors["worker_sums"] = torch.stack(self.parts)
        return values, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken, perhaps with another number of workers.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: it is no such state.
        """
        workers = len(self.momentum)
        self.rate, self.updates = float(values["rate"]), int(values["updates"])
        gathered, counts = torch.zeros_like(self.momentum), [0] * workers
        for worker, (momentum, count) in enumerate(zip(tensors["worker_momentum"], values["counts"], strict=True)):
            gathered[worker % workers].add_(momentum.to(gathered))
            counts[worker % workers] = max(counts[worker % workers], int(count))
        self.momentum.copy_(gathered)  # the state may be this object's own
        self.counts = counts
        self._sums = {}
        before = [int(worker) for worker in values["round"]]
        self._round = list(dict.fromkeys(worker % workers for worker in before))
        self._alone = None if values["alone"] is None else int(values["alone"]) % workers
        if self._alone is None and before:
            for worker, part in zip(before, tensors["worker_sums"], strict=True):
                mine, own = worker % workers, part.to(self.momentum)
                self._sums[mine] = self._sums[mine].add_(own) if mine in self._sums else own


class MomentumAhead(LookAhead):
    """DANA-Zero's pulls.

    Args:
        initial: the parameters (size,) at the beginning.
        momentum: of the workers.
    """

    def __init__(self, initial: Tensor, momentum: WorkerMomentum) -> None:
        super().__init__(initial)
        self.momentum = momentum

    def write(self, buffer: Tensor) -> None:
        """As in `LookAhead`."""
        self.momentum.ahead(buffer.copy_(self.parameters))
