"""The parameter server: one pure state machine that turns pushes into updates.

It owns the parameters and the optimizer's state, and the sum of what was pushed since the latest update. It knows no
process, clock or file: the simulated cluster, the process cluster and a replay all drive this same object. Which worker
is at which batch is the `Ledger`'s to know, and when an update is due is for the `Rule` to say; the coordinator asks
both.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor

from nmt_async.reading import as_dataclass
from nmt_async.sync.buffer import AccumulationBuffer, OrderedBuffer
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.sync.prediction import Prediction
from nmt_async.sync.push import Push, Update, Verdict
from nmt_async.sync.ring import ParameterRing
from nmt_async.sync.rules import Arrival, Rule
from nmt_async.sync.schedule import Progress, Schedule
from nmt_async.text.plan import BatchId


class ParameterServer:
    """Sums pushes as its rule says and applies them to the parameters.

    Args:
        buffers: (workers + 1, size) parameter buffers, of which the first holds the initial parameters; the others
            may hold anything. With a single buffer no worker may hold a pull while another's push makes an update.
        rule: which pushes count, and what each weighs; after an update, what it becomes by it.
        schedule: the learning rate.
        settings: of the optimizer.
        matrices: hidden matrices in the vector, in its order, for an optimizer that asks.
        predicted: a pull gives the parameters so many updates ahead (`nmt_async.sync.prediction`); 0: as they are.
    """

    def __init__(
        self,
        buffers: Tensor,
        rule: Rule,
        schedule: Schedule,
        settings: OptimizerSettings,
        matrices: Sequence[Matrix] = (),
        predicted: float = 0.0,
    ) -> None:
        self.ring = ParameterRing(buffers)
        self.rule = rule
        self.schedule = schedule
        self.optimizer = FlatOptimizer(self.ring.current, settings, matrices)
        self.buffer = (OrderedBuffer if rule.ordered else AccumulationBuffer)(self.ring.current)
        self.prediction = Prediction(self.ring.current, predicted) if predicted else None
        self.version = 0
        self.progress = Progress()

    @property
    def parameters(self) -> Tensor:
        """The current parameters, (size,)."""
        return self.ring.current if self.prediction is None else self.prediction.parameters

    @property
    def offered(self) -> Tensor:
        """What a pull gives now, (size,): the current parameters, or those that are predicted."""
        return self.ring.current

    def pull(self, worker: Hashable) -> int:
        """The index of the buffer with the current version, which stays as it is until ``worker`` lets it go.

        Raises:
            ValueError: the worker holds one already.
        """
        return self.ring.acquire(worker)

    def pulled(self, worker: Hashable) -> Tensor | None:
        """The parameters (size,) that ``worker`` holds; None if it holds none."""
        return self.ring.held_by(worker)

    def computed(self, worker: Hashable) -> None:
        """``worker`` has its gradient and reads its pull no more; it is kept only where the rule looks at it."""
        if not self.rule.looks_at_parameters:
            self.ring.release(worker)

    def release(self, worker: Hashable) -> None:
        """``worker`` holds nothing from now on, as when it died. No harm if it held nothing."""
        self.ring.release(worker)

    def readmit(self, worker: Hashable, pulled: Tensor | None) -> None:
        """``worker`` holds a gradient that it computed before the run was resumed, on ``pulled`` (size,).

        Args:
            pulled: None where the rule does not look at them.
        """
        if pulled is not None and self.rule.looks_at_parameters:
            self.ring.hold(worker, pulled)

    def push(self, push: Push, gradient: Tensor, awaited: BatchId | None = None) -> Verdict:
        """Sums a push, or refuses it; its worker lets its pull go.

        Args:
            gradient: (size,), summed over the push's tokens; may be overwritten once this returns.
            awaited: the first batch in the plan's order that was begun and is still to come, where the rule wants the
                sum in that order.
        """
        verdict = self._judge(push)
        if verdict is Verdict.ACCEPTED:
            self.buffer.add(push, self._weighed(push, gradient), awaited)
        self.release(push.worker)
        return verdict

    def _judge(self, push: Push) -> Verdict:
        if not (math.isfinite(push.gradient_norm) and math.isfinite(push.loss)):
            return Verdict.NOT_FINITE
        if not self.rule.counts(self.version - push.version):
            return Verdict.STALE
        return Verdict.ACCEPTED

    def _weighed(self, push: Push, gradient: Tensor) -> Tensor:
        """The gradient as it enters the sum; itself where its weight is 1."""
        pulled = self.pulled(push.worker) if self.rule.looks_at_parameters else None
        arrival = Arrival(self.version - push.version, push.tokens, gradient, self.parameters, pulled)
        weight = self.rule.weight(arrival)
        return gradient if isinstance(weight, float | int) and weight == 1.0 else gradient * weight

    def update(self) -> Update:
        """Applies what is accumulated, normalised by its tokens.

        Raises:
            ValueError: nothing is.
        """
        self.buffer.settle()
        pushes = tuple(self.buffer.pushes)
        if not pushes:
            raise ValueError("nothing is accumulated that could become an update")
        tokens = sum(push.tokens for push in pushes)
        self.progress = Progress(
            updates=self.version + 1,
            tokens=self.progress.tokens + tokens,
            epochs=max(self.progress.epochs, max(push.position for push in pushes)),
        )
        rate = self.schedule.rate(self.progress)
        norm = self.optimizer.step(self._updating(), self.buffer.sum, tokens, rate)
        if self.prediction is not None:
            self.prediction.write(self.ring.fresh())
        staleness = tuple(self.version - push.version for push in pushes)
        self.version += 1
        self.buffer.clear()
        update = Update(self.version, pushes, staleness, rate, norm)
        self.rule = self.rule.after(update)
        return update

    def _updating(self) -> Tensor:
        """The parameters, for an update to change them in place."""
        return self.ring.writable() if self.prediction is None else self.prediction.updating()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: plain values, and tensors by name, not copied."""
        buffer, tensors = self.buffer.state()
        values = {"version": self.version, "progress": vars(self.progress), "buffer": buffer}
        if learnt := self.rule.state():
            values["rule"] = learnt
        if self.prediction is not None:
            tensors = {**tensors, **self.prediction.state()}
        return values, {"parameters": self.parameters, **self.optimizer.state(), **tensors}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken; no worker holds anything.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: something is absent, or is not what `state` gives.
        """
        self.ring.release_all()
        self.version = int(values["version"])
        self.progress = as_dataclass(Progress, values["progress"])
        self.rule = self.rule.restored(values.get("rule", {}))
        if self.prediction is None:
            self.ring.current.copy_(tensors["parameters"])
        else:
            self.prediction.restore(tensors["parameters"], tensors["before"])
            self.prediction.write(self.ring.current)
        self.optimizer.restore(tensors)
        self.buffer.restore(values["buffer"], tensors)
