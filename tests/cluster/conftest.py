from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.simulated import WorkerGradients
from nmt_async.cluster.worker import Worker
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.transformer import Transformer
from nmt_async.quantity import Quantity
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.corrections.build import build_corrections
from nmt_async.sync.corrections.settings import NONE, CorrectionSettings
from nmt_async.sync.journal import Event
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.rules import Rule, rule_for
from nmt_async.sync.schedule import Schedule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import ParallelStore
from nmt_async.text.token_store import StoreWriter

VOCABULARY = 13
SEED = 5


@dataclass
class Training:
    """A tiny real training that any kind of cluster may drive.

    Attributes:
        data: 48 pairs.
        epsilon: Adam's; large, so that rounding does not grow where a gradient is nearly zero.
        push: how a push is made of a gradient.
    """

    data: ParallelStore
    epsilon: float = 1e-3
    clip_norm: float = 1.0
    optimizer: str = "adam"
    label_smoothing: float = 0.1
    schedule: Schedule = Schedule(0.02, Quantity(4, "updates"), "inv-sqrt")
    push: PushSettings = WHOLE

    def plan(self, budget: int = 24) -> BatchPlan:
        return BatchPlan(self.data.source.lengths, self.data.target.lengths, budget, SEED)

    def model(self, dropout: float = 0.0, tied: str = "all") -> Transformer:
        return Transformer(
            ModelConfiguration(VOCABULARY, VOCABULARY, 16, 2, 24, 1, 1, "pre", "relu", dropout, tied, 32), SEED
        )

    def worker(self, dropout: float = 0.0) -> Worker:
        return Worker(self.model(dropout), SEED, self.label_smoothing, torch.device("cpu"), push=self.push)

    def gradients(self, dropout: float = 0.0) -> WorkerGradients:
        return WorkerGradients(self.worker(dropout), self.data)

    def server(self, rule: Rule, workers: int, corrections: CorrectionSettings = NONE) -> ParameterServer:
        model = self.model()
        layout = FlatLayout(model)
        buffers = torch.full((workers + 1, layout.size), float("nan"))
        buffers[0] = layout.gather(model)
        settings = OptimizerSettings(
            name=self.optimizer, epsilon=self.epsilon, clip_norm=self.clip_norm, smoothing=0.1, momentum=0.9
        )  # fmt: skip
        built = build_corrections(corrections, settings, buffers[0], workers, rule.staleness(workers))
        residuals = torch.zeros(2 * workers, layout.size) if self.push.compressed else None
        return ParameterServer(buffers, rule, self.schedule, settings, corrections=built, residuals=residuals)

    def coordinator(
        self, mode: str | Rule, workers: int, accumulate: int = 1, epochs: int | None = None,
        events: list[Event] | None = None, corrections: CorrectionSettings = NONE,
    ) -> Coordinator:  # fmt: skip
        rule = rule_for(mode, workers, accumulate) if isinstance(mode, str) else mode
        record = ([] if events is None else events).append
        return Coordinator(self.server(rule, workers, corrections), self.plan(), record, [].append, epochs)


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder: Path = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(1)
    for side in ("source", "target"):
        with StoreWriter(folder / f"train.{side}", VOCABULARY) as writer:
            for _ in range(48):
                writer.append([*generator.integers(2, VOCABULARY, generator.integers(1, 9)).tolist(), 0])
    return Training(ParallelStore(folder, "train"))


def stored(state: tuple[dict[str, Any], dict[str, Tensor]]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state as it comes back from a checkpoint's files."""
    values, tensors = state
    return json.loads(json.dumps(values)), {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.fixture(scope="session")
def through_a_checkpoint():
    """`stored`."""
    return stored
