"""The models, which compute and know nothing of training: configurations, the Transformer, the recurrent model, loss.

from nmt_async.model import ModelConfiguration, build_model

model = build_model(ModelConfiguration.from_mapping(values), seed=1)
logits, targets = model(batch)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.model.build import build_model
    from nmt_async.model.configuration import ModelConfiguration, ModelOptions
    from nmt_async.model.loss import smoothed_cross_entropy
    from nmt_async.model.parameters import FlatLayout
    from nmt_async.model.translation_model import DecoderState, TranslationModel

__all__ = [
    "DecoderState",
    "FlatLayout",
    "ModelConfiguration",
    "ModelOptions",
    "TranslationModel",
    "build_model",
    "smoothed_cross_entropy",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        "build_model": "build",
        **dict.fromkeys(("ModelConfiguration", "ModelOptions"), "configuration"),
        "smoothed_cross_entropy": "loss",
        "FlatLayout": "parameters",
        **dict.fromkeys(("DecoderState", "TranslationModel"), "translation_model"),
    },
)
