"""The parameter server: one pure state machine that turns pushes into updates.

It owns the parameters and the optimizer's state and knows which worker computes which batch on which version. It
knows no process, clock or file: the simulated cluster, the process cluster and a replay all drive this same object.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nmt_async.reading import as_dataclass
from nmt_async.sync.buffer import AccumulationBuffer, OrderedBuffer
from nmt_async.sync.optimizer import FlatOptimizer, OptimizerSettings
from nmt_async.sync.push import Answer, BatchKey, Pull, Push, Update, Verdict
from nmt_async.sync.ring import ParameterRing
from nmt_async.sync.rules import Rule, Standing
from nmt_async.sync.schedule import Progress, Schedule


@dataclass(frozen=True)
class Begun:
    """A batch that a worker is computing."""

    batch: BatchKey
    version: int


class ParameterServer:
    """Sums pushes as its rule says and applies them to the parameters.

    Args:
        buffers: (workers + 1, size) parameter buffers, of which the first holds the initial parameters; the others
            may hold anything. With a single buffer no worker may hold a pull while another's push makes an update.
        rule: when pushes become an update.
        schedule: the learning rate.
        settings: of the optimizer.
    """

    def __init__(self, buffers: Tensor, rule: Rule, schedule: Schedule, settings: OptimizerSettings) -> None:
        self.ring = ParameterRing(buffers)
        self.rule = rule
        self.schedule = schedule
        self.optimizer = FlatOptimizer(self.ring.current, settings)
        self.buffer = (OrderedBuffer if rule.ordered else AccumulationBuffer)(self.ring.current)
        self.version = 0
        self.progress = Progress()
        self._begun: dict[int, Begun] = {}
        self._round: Counter[int] = Counter()  # batches that each worker has begun on this version
        self._round_total = 0

    @property
    def parameters(self) -> Tensor:
        """The current parameters, (size,)."""
        return self.ring.current

    def may_start(self, worker: int) -> bool:
        """Whether ``worker`` may begin a batch now, or must wait for an update."""
        return worker not in self._begun and self.rule.may_start(self._standing(worker))

    def _standing(self, worker: int) -> Standing:
        """Counts what is being computed or accumulated on the current version."""
        return Standing(own=self._round[worker], all=self._round_total)

    def _begin_round(self) -> None:
        self._round.clear()
        self._round_total = 0

    def _count(self, worker: int, version: int, change: int = 1) -> None:
        """A batch of this round is begun, or is not any more; those of earlier rounds do not count."""
        if version == self.version:
            self._round[worker] += change
            self._round_total += change

    def start(self, worker: int, batch: BatchKey) -> Pull:
        """The pull with which ``worker`` begins ``batch``.

        Raises:
            ValueError: the worker is at a batch already, or must wait.
        """
        if not self.may_start(worker):
            raise ValueError(f"worker {worker} may not begin a batch now")
        self._begun[worker] = Begun(batch, self.version)
        self._count(worker, self.version)
        self.buffer.expect(batch)
        return Pull(self.version, self.ring.acquire(worker))

    def readmit(self, worker: int, batch: BatchKey, version: int) -> None:
        """A worker holds the gradient of a batch that it began on ``version`` before the run was resumed."""
        self._begun[worker] = Begun(batch, version)
        self._count(worker, version)

    def push(self, push: Push, gradient: Tensor) -> Answer:
        """Accepts or refuses a push, and updates the parameters when the rule says so.

        Args:
            gradient: (size,), summed over the push's tokens; may be overwritten once this returns.

        Raises:
            ValueError: the worker is not at this batch on this version: nothing is changed.
        """
        if self._begun.get(push.worker) != Begun(push.batch, push.version):
            raise ValueError(f"worker {push.worker} has not begun batch {push.batch} on version {push.version}")
        self.abandon(push.worker)
        verdict = self._judge(push)
        if verdict is not Verdict.ACCEPTED:
            return Answer(verdict)
        self._count(push.worker, push.version)
        self.buffer.add(push, gradient)
        return Answer(verdict, self._update() if len(self.buffer) >= self.rule.pushes else None)

    def _judge(self, push: Push) -> Verdict:
        if not (math.isfinite(push.gradient_norm) and math.isfinite(push.loss)):
            return Verdict.NOT_FINITE
        if not self.rule.counts(self.version - push.version):
            return Verdict.STALE
        return Verdict.ACCEPTED

    def abandon(self, worker: int) -> None:
        """``worker`` is at nothing from now on: it died, or its push is here. No harm if it was at nothing.

        What it has not delivered of a round another worker or its replacement may do.
        """
        self.ring.release(worker)
        begun = self._begun.pop(worker, None)
        if begun is not None:
            self._count(worker, begun.version, -1)

    def flush(self) -> Update | None:
        """Applies what is accumulated, if anything, as a smaller update normalised by its own tokens."""
        return self._update() if len(self.buffer) else None

    def _update(self) -> Update:
        self.buffer.settle()
        pushes = tuple(self.buffer.pushes)
        tokens = sum(push.tokens for push in pushes)
        self.progress = Progress(
            updates=self.version + 1,
            tokens=self.progress.tokens + tokens,
            epochs=max(self.progress.epochs, max(push.position for push in pushes)),
        )
        rate = self.schedule.rate(self.progress)
        norm = self.optimizer.step(self.ring.writable(), self.buffer.sum, tokens, rate)
        staleness = tuple(self.version - push.version for push in pushes)
        self.version += 1
        self._begin_round()
        self.buffer.clear()
        return Update(self.version, pushes, staleness, rate, norm)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: plain values, and tensors by name, not copied."""
        buffer, tensors = self.buffer.state()
        values = {"version": self.version, "progress": vars(self.progress), "buffer": buffer}
        return values, {"parameters": self.parameters, **self.optimizer.state(), **tensors}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken; workers are at nothing.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: something is absent, or is not what `state` gives.
        """
        self.version = int(values["version"])
        self.progress = as_dataclass(Progress, values["progress"])
        self.parameters.copy_(tensors["parameters"])
        self.optimizer.restore(tensors)
        self.buffer.restore(values["buffer"], tensors)
        for worker in list(self._begun):
            self.abandon(worker)
        self._begin_round()
        for push in self.buffer.pushes:
            self._count(push.worker, push.version)
