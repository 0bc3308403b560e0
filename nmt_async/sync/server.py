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
from nmt_async.sync.compression.error_feedback import Residuals
from nmt_async.sync.compression.message import Message, dense
from nmt_async.sync.corrections.build import NOTHING, Corrections
from nmt_async.sync.corrections.correction import Applied, Arrival
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.sync.push import Push, Update, Verdict
from nmt_async.sync.ring import ParameterRing
from nmt_async.sync.rules import Rule
from nmt_async.sync.schedule import Progress, Schedule
from nmt_async.text.plan import BatchId


class ParameterServer:
    """Sums pushes as its rule says and applies them to the parameters.

    Args:
        buffers: (workers + 1, size) parameter buffers, of which the first holds the initial parameters; the others
            may hold anything. With a single buffer no worker may hold a pull while another's push makes an update.
        rule: which pushes count; after an update, what it becomes by it.
        schedule: the learning rate.
        settings: of the optimizer.
        matrices: hidden matrices in the vector, in its order, for an optimizer that asks.
        corrections: what is done because gradients are stale.
        residuals: (2 * workers, size), zeros, where pushes leave something behind; None where they cross whole.

    Attributes:
        version: of the parameters; it counts updates.
        late: updates by which every push is older than it would be on this machine alone; the rule, whose bounds are
            on what goes on inside a machine, does not count them.
    """

    def __init__(
        self,
        buffers: Tensor,
        rule: Rule,
        schedule: Schedule,
        settings: OptimizerSettings,
        matrices: Sequence[Matrix] = (),
        corrections: Corrections = NOTHING,
        residuals: Tensor | None = None,
    ) -> None:
        self.ring = ParameterRing(buffers)
        self.rule = rule
        self.schedule = schedule
        self.corrections = corrections
        self.optimizer = FlatOptimizer(self.ring.current, settings, matrices, corrections.momentum)
        self.buffer = (OrderedBuffer if rule.ordered else AccumulationBuffer)(self.ring.current)
        self.residuals = None if residuals is None else Residuals(residuals)
        self.version = 0
        self.progress = Progress()
        self.late = 0
        if corrections.look_ahead is not None:
            corrections.look_ahead.write(self.ring.current)

    @property
    def parameters(self) -> Tensor:
        """The current parameters, (size,)."""
        ahead = self.corrections.look_ahead
        return self.ring.current if ahead is None else ahead.parameters

    @property
    def offered(self) -> Tensor:
        """What a pull gives now, (size,): the current parameters, or where they are expected to be."""
        return self.ring.current

    @property
    def residual_rows(self) -> Tensor | None:
        """(2 * workers, size), where pushes leave something behind."""
        return None if self.residuals is None else self.residuals.rows

    @property
    def learning_rate(self) -> float:
        """Of the latest update; before the first, that at which the schedule begins."""
        return self.schedule.rate(self.progress)

    @property
    def keeps_pulls(self) -> bool:
        """Whether what a push was computed on is kept until it comes, since a correction looks at it."""
        return self.corrections.looks_at_parameters

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
        """``worker`` has its gradient and reads its pull no more; it is kept only where a correction looks at it."""
        if not self.keeps_pulls:
            self.ring.release(worker)

    def release(self, worker: Hashable) -> None:
        """``worker`` holds nothing from now on, as when it died. No harm if it held nothing."""
        self.ring.release(worker)

    def readmit(self, worker: Hashable, pulled: Tensor | None) -> None:
        """``worker`` holds a gradient that it computed before the run was resumed, on ``pulled`` (size,).

        Args:
            pulled: None where no correction looks at them.
        """
        if pulled is not None and self.keeps_pulls:
            self.ring.hold(worker, pulled)

    def push(self, push: Push, gradient: Message, awaited: BatchId | None = None) -> Verdict:
        """Sums a push, or refuses it; its worker lets its pull go.

        Args:
            gradient: (size,), summed over the push's tokens, as it crossed; may be overwritten once this returns.
            awaited: the first batch in the plan's order that was begun and is still to come, where the rule wants the
                sum in that order.
        """
        verdict = self._judge(push)
        if verdict is Verdict.ACCEPTED:
            gradient = self._weighed(push, gradient)
            if self.corrections.momentum is not None:
                gradient = whole = dense(gradient, self.parameters)
                self.corrections.momentum.add(push.worker, whole, self.buffer.sum, len(self.buffer))
            self.buffer.add(push, gradient, awaited)
            if self.residuals is not None:
                self.residuals.accepted(push.worker)
        self.release(push.worker)
        return verdict

    def _judge(self, push: Push) -> Verdict:
        if not (math.isfinite(push.gradient_norm) and math.isfinite(push.loss)):
            return Verdict.NOT_FINITE
        if not self.rule.counts(max(0, self.version - push.version - self.late)):
            return Verdict.STALE
        return Verdict.ACCEPTED

    def _weighed(self, push: Push, gradient: Message) -> Message:
        """The gradient as it enters the sum; itself where its weight is 1."""
        if not self.corrections.each:
            return gradient
        whole = dense(gradient, self.parameters)
        pulled = self.pulled(push.worker) if self.keeps_pulls else None
        arrival = Arrival(self.version - push.version, push.tokens, whole, self.parameters, pulled)
        for correction in self.corrections.each:
            weight = correction.weight(arrival)
            if isinstance(weight, Tensor) or weight != 1.0:
                gradient = whole = whole * weight
        return gradient

    def update(self) -> Update:
        """Applies what is accumulated, normalised by its tokens.

        Raises:
            ValueError: nothing is.
        """
        self.buffer.settle()
        update = self.apply(tuple(self.buffer.pushes), self.buffer.sum)
        self.buffer.clear()
        return update

    def take(self) -> tuple[tuple[Push, ...], Tensor]:
        """What is accumulated leaves for a joint update of several machines: the pushes, and their sum (size,)."""
        self.buffer.settle()
        pushes = tuple(self.buffer.pushes)
        return pushes, self.buffer.take()

    def apply_joint(self, pushes: tuple[Push, ...], total: Tensor) -> Update:
        """Applies the sum of what several machines have taken; see `apply`. The vector is the server's again."""
        update = self.apply(pushes, total)
        self.buffer.reuse(total)
        return update

    def follow(self, other: ParameterServer, total: Tensor) -> None:
        """Takes over what an update has made of another server, which was in the same state before.

        Args:
            total: that it applied, (size,); the vector is the server's again.
        """
        made, ahead = other.vectors(), self.corrections.look_ahead
        for name, tensor in self.vectors().items():
            if name != "parameters":
                tensor.copy_(made[name])
        if ahead is None:
            self.ring.writable().copy_(other.parameters)
        else:
            ahead.parameters.copy_(other.parameters)
            ahead.write(self.ring.fresh())
        self.version, self.progress = other.version, other.progress
        self.rule = other.rule
        self.buffer.reuse(total)

    def move(self, parameters: Tensor, version: int, progress: Progress) -> None:
        """Goes on from other ``parameters`` (size,), copied, at a version and a progress that others have, too."""
        ahead = self.corrections.look_ahead
        if ahead is None:
            self.ring.writable().copy_(parameters)
        else:
            ahead.move(parameters)
            ahead.write(self.ring.fresh())
        self.version, self.progress = version, progress

    def apply(self, pushes: tuple[Push, ...], total: Tensor) -> Update:
        """Applies the sum of ``pushes``, ``total`` (size,), normalised by their tokens; it is overwritten.

        Raises:
            ValueError: there are none.
        """
        if not pushes:
            raise ValueError("nothing is accumulated that could become an update")
        tokens = sum(push.tokens for push in pushes)
        self.progress = Progress(
            updates=self.version + 1,
            tokens=self.progress.tokens + tokens,
            epochs=max(self.progress.epochs, max(push.position for push in pushes)),
        )
        rate = self.schedule.rate(self.progress)
        staleness = tuple(self.version - push.version for push in pushes)
        mean = sum(age * push.tokens for age, push in zip(staleness, pushes, strict=True)) / tokens
        norm = self._apply(total, tokens, rate, mean)
        self.version += 1
        update = Update(self.version, pushes, staleness, rate, norm)
        self.rule = self.rule.after(update)
        return update

    def _apply(self, total: Tensor, tokens: int, rate: float, staleness: float) -> float:
        """The sum becomes a step of the parameters; its norm per token before clipping."""
        ahead, momentum = self.corrections.look_ahead, self.corrections.momentum
        before, place = self.parameters, self.ring.index
        parameters = self.ring.writable() if ahead is None else ahead.updating()
        in_place = ahead is not None or self.ring.index == place
        if in_place and self.corrections.watches_updates:
            before = before.clone()  # otherwise it still stands in its buffer, which somebody reads

        def correct() -> None:
            for correction in self.corrections.each:
                if correction.watches_updates:
                    correction.applied(Applied(before, parameters, rate, staleness))

        parts = () if momentum is None else momentum.parts
        norm = self.optimizer.step(parameters, total, tokens, rate, correct, parts)
        if ahead is not None:
            ahead.write(self.ring.fresh())
        return norm

    def vectors(self) -> dict[str, Tensor]:
        """What the updates have made, by the names of a checkpoint: parameters, moments and all else; not copied."""
        tensors = {"parameters": self.parameters, **self.optimizer.state()}
        if self.corrections.look_ahead is not None:
            tensors |= self.corrections.look_ahead.tensors
        if self.corrections.momentum is not None:
            tensors["worker_momentum"] = self.corrections.momentum.momentum
        for correction in self.corrections.each:
            if correction.watches_updates:
                tensors |= correction.tensors
        return tensors

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: plain values, and tensors by name, not copied."""
        buffer, tensors = self.buffer.state()
        values = {"version": self.version, "progress": vars(self.progress), "buffer": buffer}
        if learnt := self.rule.state():
            values["rule"] = learnt
        for correction in self.corrections.each:
            tensors |= correction.tensors
        if self.corrections.momentum is not None:
            values["momentum"], sums = self.corrections.momentum.state()
            tensors |= sums
        if self.residuals is not None:
            tensors |= self.residuals.state()
        return values, {**self.vectors(), **tensors}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken; no worker holds anything.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: something is absent, or is not what `state` gives.
        """
        self.ring.release_all()
        self.version = int(values["version"])
        self.progress = as_dataclass(Progress, values["progress"])
        self.rule = self.rule.restored(values.get("rule", {}))
        self.parameters.copy_(tensors["parameters"])
        self.optimizer.restore(tensors)
        self._restore_corrections(values, tensors)
        self.buffer.restore(values["buffer"], tensors)
        if self.residuals is not None:
            self.residuals.restore(tensors)

    def _restore_corrections(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        ahead, momentum = self.corrections.look_ahead, self.corrections.momentum
        for correction in self.corrections.each:
            for name, tensor in correction.tensors.items():
                tensor.copy_(tensors[name])
        if momentum is not None:
            momentum.restore(values["momentum"], tensors)
        if ahead is not None:
            ahead.restore(tensors)
            ahead.write(self.ring.current)
