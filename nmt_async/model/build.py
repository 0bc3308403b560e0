"""The one place where a configuration becomes a model."""

from __future__ import annotations

from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.recurrent import RecurrentModel
from nmt_async.model.transformer import Transformer
from nmt_async.model.translation_model import TranslationModel

MODELS: dict[str, type[Transformer] | type[RecurrentModel]] = {"transformer": Transformer, "rnn": RecurrentModel}


def build_model(configuration: ModelConfiguration, seed: int = 1) -> TranslationModel:
    """The model that the configuration describes, with the initial parameters that belong to the seed.

    Raises:
        ValueError: this version knows no such model.
    """
    if configuration.model not in MODELS:
        raise ValueError(f"there is no model called {configuration.model!r}")
    return MODELS[configuration.model](configuration, seed)
