"""A model around a model, for tests in which something happens on the way."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nmt_async.model.translation_model import TrainableModel
from nmt_async.text.batch import Batch


class WrappedModel(TrainableModel):
    """Computes as ``model``, whose parameters are its own."""

    def __init__(self, model: TrainableModel) -> None:
        super().__init__()
        self.model = model

    @property
    def output_weight(self) -> Any:  # type: ignore[override]
        return self.model.output_weight

    @property
    def output_bias(self) -> Any:  # type: ignore[override]
        return self.model.output_bias

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.model.hidden(batch)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)

    def start(self, source: Tensor, source_lengths: Tensor) -> Any:
        return self.model.start(source, source_lengths)

    def step(self, state: Any, previous: Tensor | None) -> Tensor:
        return self.model.step(state, previous)
