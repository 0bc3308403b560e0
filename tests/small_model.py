"""A model folder to translate with, made in a moment: real vocabulary, real parameters, untrained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch

from nmt_async.checkpoints.model_folder import save_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.transformer import Transformer
from nmt_async.text.vocabulary import END, train_vocabulary

WORDS = "the a dog cat bird sees hears runs house garden in on small big red and or never"


def save_small_model(folder: Path, tags: Sequence[str] = ()) -> Path:
    """Saves it in ``folder`` / model; it ends its translations soon."""
    chance = random.Random(1)
    lines = [" ".join(chance.choices(WORDS.split(), k=8)) for _ in range(400)]
    vocabulary = train_vocabulary(lines, 38, "unigram", folder / "vocabulary.model", tags=tags)
    model = Transformer(ModelConfiguration(38, 38, 16, 2, 24, 1, 1, "pre", "relu", 0.1, "all"))
    with torch.no_grad():
        model.output_weight.mul_(2.0)
        model.output_bias.copy_(torch.randn(38, generator=torch.Generator().manual_seed(1)))
        model.output_bias[END] += 1.0
    layout = FlatLayout(model)
    named = layout.named(layout.gather(model))
    save_model(folder / "model", model.configuration, named, vocabulary.path, vocabulary.path)
    return folder / "model"
