"""Several models that translate as one: each subword's log-probabilities are mixed with weights, as Marian does it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from nmt_async.checkpoints import LoadedModel, load_model
from nmt_async.errors import UserError
from nmt_async.model import DecoderState, TranslationModel
from nmt_async.search.options import Weights

ModelPath = str | os.PathLike[str]
"""The folder of a run or of a checkpoint."""


class EnsembleState(DecoderState):
    """The states of all models, over the same hypotheses."""

    def __init__(self, states: list[DecoderState]) -> None:
        self.states = states
        self.sentences, self.beam = states[0].sentences, states[0].beam

    def reorder(self, parents: Tensor) -> None:
        for state in self.states:
            state.reorder(parents)
        self.beam = parents.shape[1]

    def keep(self, kept: Tensor) -> None:
        for state in self.states:
            state.keep(kept)
        self.sentences = len(kept)

    def note_attention(self) -> None:
        self.states[0].note_attention()

    @property
    def attention(self) -> Tensor | None:
        """The first model's, as in Marian."""
        return self.states[0].attention


class Ensemble(TranslationModel):
    """Models with the same vocabularies.

    Args:
        weights: of the models' log-probabilities, 0 or more. They need not sum to 1: the mixture is not normalised.
    """

    def __init__(self, models: Sequence[TranslationModel], weights: Sequence[float]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.weights = tuple(weights)

    def start(self, source: Tensor, source_lengths: Tensor) -> EnsembleState:
        """The models' states; see `nmt_async.model.translation_model.TranslationModel`."""
        return EnsembleState([cast(TranslationModel, model).start(source, source_lengths) for model in self.models])

    def step(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """The weighted sum (rows, vocabulary) of the models' log-probabilities."""
        mixed: Tensor | None = None
        for model, weight, own in zip(self.models, self.weights, cast(EnsembleState, state).states, strict=True):
            part = cast(TranslationModel, model).log_probabilities(own, previous).mul_(weight)
            mixed = part if mixed is None else mixed.add_(part)
        assert mixed is not None
        return mixed

    def log_probabilities(self, state: DecoderState, previous: Tensor | None) -> Tensor:
        """As `step`: the mixture is what hypotheses are scored by."""
        return self.step(state, previous)


def load_models(
    models: ModelPath | Sequence[ModelPath],
    weights: Weights | Sequence[float] | str | None = None,
    flag: str = "--weights",
) -> LoadedModel:
    """One model, or an ensemble of several, each as `load_model` finds it.

    Args:
        models: one folder, or several.
        weights: None gives all the same, which sum to 1. (Marian's are 1 each then: the same translations, with scores
            that are as many times ours as there are models.)
        flag: the option that names the weights, for messages.

    Raises:
        UserError: a folder holds no model, the models' vocabularies differ, or there are not as many weights as models.
    """
    folders = [Path(folder) for folder in ([models] if isinstance(models, str | os.PathLike) else models)]
    if not folders:
        raise UserError("there is no model; name one or more.")
    if weights is not None and not isinstance(weights, Weights):
        weights = Weights.parse(weights if isinstance(weights, str) else " ".join(map(str, weights)))
    if weights is not None and len(weights.values) != len(folders):
        raise UserError(
            f"{flag}: {len(weights.values)} weight{'s' * (len(weights.values) > 1)} for {len(folders)} "
            f"model{'s' * (len(folders) > 1)}; give one for each."
        )
    loaded = [load_model(folder, packed=True) for folder in folders]
    first = loaded[0]
    if len(loaded) == 1 and weights is None:
        return first
    for other in loaded[1:]:
        for side, mine, its in (
            ("target", first.target_vocabulary, other.target_vocabulary),
            ("source", first.source_vocabulary, other.source_vocabulary),
        ):
            if not mine.is_same_as(its):
                raise UserError(
                    f"{first.folder} and {other.folder} have different {side} vocabularies; "
                    f"only models trained on data prepared with the same ones translate together."
                )
    values = weights.values if weights else (1.0 / len(loaded),) * len(loaded)
    return replace(first, model=Ensemble([each.model for each in loaded], values))
