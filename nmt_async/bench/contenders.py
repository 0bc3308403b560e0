"""Whose speed is measured: our own workers and server, and what they are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from nmt_async.bench.loops import PlainLoop, SimulatedLoop
from nmt_async.cluster.loops import GradientLoop, LoopProcesses, Turn
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.task import Handled
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.settings import WHOLE
from nmt_async.text.plan import BatchPlan
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator, shared_memory

RIVALS = ("plain", "independent", "ddp", "gradients", "simulated")
"""Those that are not our workers in processes."""


class Contender(Protocol):
    """Something whose speed is measured."""

    def turn(self, batches: int) -> Turn:
        """``batches`` batches of each of its processes."""

    def close(self) -> None:
        """Ends its processes."""


class OurCluster:
    """Our own workers and server, as in training, as a contender."""

    def __init__(self, options: TrainOptions, settings: WorkerSettings, plan: BatchPlan) -> None:
        model = build_model(settings.configuration, settings.seed)
        layout = FlatLayout(model)
        devices = options.device_list()
        warnings: list[str] = []
        self.memory = shared_memory(devices, layout, settings.push, warnings.append)
        self.memory.ring.tensor[0].copy_(layout.gather(model))
        coordinator = build_coordinator(
            options, plan, layout, self.memory.ring.tensor, record=lambda _event: None, warn=warnings.append,
            residuals=self.memory.residual_rows,
        )  # fmt: skip
        self.pushes: list[Handled] = []
        self.cluster = ProcessCluster(
            coordinator, self.memory, settings, devices, warnings.append, observe=self._observe
        )

    def _observe(self, push: Handled) -> None:
        self.pushes.append(push)

    def turn(self, batches: int) -> Turn:
        """Its rate is summed over workers, each from the turn's begin to its last push."""
        self.pushes = []
        before = self.cluster.work_done()
        begin = time.monotonic()
        wanted = batches * len(before)
        pushes = 0
        for update in self.cluster.updates():
            pushes += len(update.pushes) if update is not None else 0
            if pushes >= wanted - len(before):
                break
        for _ in self.cluster.drain():
            pass
        after = self.cluster.work_done()
        rate = sum(
            (tokens - earlier) / (latest - begin)
            for (earlier, _), (tokens, latest) in zip(before, after, strict=True)
            if tokens > earlier
        )
        operations = self.cluster.coordinator.server.optimizer.operations
        return Turn(rate, pushes=self.pushes, operations=operations)

    def close(self) -> None:
        """Ends the workers."""
        self.cluster.close()
        self.memory.close()


@contextmanager
def contenders(
    ours: Mapping[str, TrainOptions], rivals: Mapping[str, TrainOptions], settings: WorkerSettings, plan: BatchPlan
) -> Iterator[dict[str, Contender]]:
    """All of them by name, their processes up.

    Args:
        ours: options of our own clusters.
        rivals: of `RIVALS` those wanted, each with the options that it is compared with; their gradients are whole.
    """
    whole = replace(settings, push=WHOLE)

    def rival(name: str, options: TrainOptions) -> Contender:
        devices = options.device_list()
        if name == "plain":
            return LoopProcesses(whole, plan, devices[:1], PlainLoop)
        if name == "gradients":
            return LoopProcesses(whole, plan, devices[:1], GradientLoop)
        if name == "simulated":
            return LoopProcesses(whole, plan, devices[:1], partial(SimulatedLoop, options))
        return LoopProcesses(whole, plan, devices, PlainLoop, group=name == "ddp")

    makers: dict[str, Callable[[], Contender]] = {
        name: partial(OurCluster, options, settings, plan) for name, options in ours.items()
    }
    makers |= {name: partial(rival, name, options) for name, options in rivals.items()}
    with ExitStack() as stack:
        made = {}
        for name, make in makers.items():
            made[name] = make()
            stack.callback(made[name].close)
        yield made
