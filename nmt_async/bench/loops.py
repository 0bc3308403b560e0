"""What training is measured against.

A plain loop, alone, side by side, and under torch's DDP; and a simulated cluster with real gradients, which costs what
it is slower than these alone.
"""

from __future__ import annotations

import torch
from torch import nn

from nmt_async.cluster.loops import CountedGradients, Place
from nmt_async.cluster.profile import profile_for
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.model.build import build_model
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator

CLIP_NORM = 1.0


class PlainLoop:
    """The loop that everybody writes: forward, backward, clip, step, on every ``ranks``-th batch from ``rank`` on.

    With a meeting, gradients are averaged with the other ranks by torch's DistributedDataParallel over Gloo.
    """

    def __init__(self, place: Place) -> None:
        settings = place.settings
        if place.meeting is not None:
            meeting = f"file://{place.meeting}"
            torch.distributed.init_process_group("gloo", init_method=meeting, rank=place.rank, world_size=place.ranks)
        self.data = PreparedData.open(settings.data).train
        self.plan = place.plan
        self.number, self.ranks = place.rank, place.ranks
        self.label_smoothing = settings.label_smoothing
        model = build_model(settings.configuration, settings.seed).train()
        self.model: nn.Module = nn.parallel.DistributedDataParallel(model) if place.meeting is not None else model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)

    def run(self, batches: int) -> int:
        """Trains on so many batches; their target tokens."""
        return sum(self._step() for _ in range(batches))

    def _step(self) -> int:
        epoch = self.plan.epoch(1)
        batch = self.data.batch(self.plan.sentences(BatchId(1, self.number % len(epoch))))
        self.number += self.ranks
        self.optimizer.zero_grad(set_to_none=True)
        logits, targets = self.model(batch)
        loss = smoothed_cross_entropy(logits, targets, self.label_smoothing) / len(targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return batch.target_tokens


PROFILE = "paper"
"""Of the simulated cluster; what it computes is the same under any."""


class SimulatedLoop:
    """A simulated cluster that trains on the same batches.

    Args:
        options: how gradients become updates, and the number of virtual workers.
    """

    def __init__(self, options: TrainOptions, place: Place) -> None:
        workers = len(options.device_list())
        model = build_model(place.settings.configuration, place.settings.seed)
        layout = FlatLayout(model)
        coordinator = build_coordinator(
            options,
            place.plan,
            layout,
            layout.gather(model)[None],
            record=lambda _event: None,
            warn=lambda _text: None,
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
