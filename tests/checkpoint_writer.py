"""Checkpoints of a tiny model, written without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training_runs import small_options

from nmt_async.checkpoints.run_checkpoints import Checkpoints, ModelFiles
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.prepared import PreparedData
from nmt_async.training.parts import model_configuration


class CheckpointWriter:
    """Writes checkpoints of a tiny model whose every parameter is the step."""

    def __init__(self, run: Path, data: Path, keep_last: int = 2, keep_best: int = 1) -> None:
        prepared = PreparedData.open(data)
        configuration = model_configuration(small_options(run), prepared)
        self.layout = FlatLayout(build_model(configuration))
        vocabulary = prepared.source_vocabulary.path
        files = ModelFiles(configuration, self.layout, vocabulary, vocabulary)
        self.run = run
        self.warnings: list[str] = []
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(run, files, keep_last, keep_best)

    def vector(self, step: int) -> Tensor:
        return torch.full((self.layout.size,), float(step))

    def save(self, *steps: int, best: list[int] | None = None) -> None:
        for step in steps:
            tensors = {"parameters": self.vector(step)}
            self.checkpoints.save(step, {"step": step}, tensors, self.vector(step), best or []).result()

    def best(self, step: int, ranking: list[int]) -> None:
        self.checkpoints.save_best(step, self.vector(step), ranking).result()

    def newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        return self.checkpoints.newest(self.warnings.append)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in (self.run / "checkpoints").iterdir())
