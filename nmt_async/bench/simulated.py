"""What a simulated cluster with real gradients costs beside the plain computation of these gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from nmt_async.bench.rivals import Place
from nmt_async.cluster.profile import profile_for
from nmt_async.cluster.simulated import SimulatedCluster, WorkerGradients
from nmt_async.cluster.task import Computed, Task
from nmt_async.cluster.worker_process import build_worker
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator

PROFILE = "paper"
"""Of the simulated cluster; what it computes is the same under any."""


class CountedGradients(WorkerGradients):
    """A real worker's gradients, counted."""

    def __init__(self, place: Place) -> None:
        worker = build_worker(place.settings, torch.device("cpu"))
        super().__init__(worker, PreparedData.open(place.settings.data).train)
        self.batches = 0
        self.tokens = 0

    def compute(self, parameters: Tensor, gradient: Tensor, task: Task) -> Computed:
        """As in `nmt_async.cluster.simulated.Gradients`."""
        computed = super().compute(parameters, gradient, task)
        self.batches += 1
        self.tokens += computed.tokens
        return computed


class GradientLoop:
    """Computes the gradients of the plan's batches, one after another on the initial parameters, and nothing else."""

    def __init__(self, place: Place) -> None:
        self.plan = place.plan
        self.gradients = CountedGradients(place)
        self.parameters = initial_parameters(place)
        self.slot = torch.zeros_like(self.parameters)
        self.next = BatchId(1, 0)

    def run(self, batches: int) -> int:
        """Computes so many batches; their target tokens."""
        before = self.gradients.tokens
        for _ in range(batches):
            batch, plan = self.next, self.plan
            self.gradients.compute(self.parameters, self.slot, Task(batch, plan.parts(batch), buffer=0))
            self.next = plan.following(batch)
        return self.gradients.tokens - before


class SimulatedLoop:
    """A simulated cluster that trains on the same batches.

    Args:
        options: how gradients become updates, and the number of virtual workers.
    """

    def __init__(self, options: TrainOptions, place: Place) -> None:
        workers = len(options.device_list())
        buffers = initial_parameters(place)[None]
        coordinator = build_coordinator(
            options, place.plan, buffers, record=lambda _event: None, warn=lambda _text: None
        )
        self.gradients = CountedGradients(place)
        cluster = SimulatedCluster(coordinator, self.gradients, profile_for(PROFILE, workers), place.settings.seed)
        self.updates = cluster.updates()

    def run(self, batches: int) -> int:
        """Goes on until so many batches or a few more are computed; their target tokens."""
        before, wanted = self.gradients.tokens, self.gradients.batches + batches
        while self.gradients.batches < wanted:
            next(self.updates)
        return self.gradients.tokens - before


def initial_parameters(place: Place) -> Tensor:
    """A model's as training begins with them, (size,)."""
    model = build_model(place.settings.configuration, place.settings.seed)
    return FlatLayout(model).gather(model)
