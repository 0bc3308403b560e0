"""A real vocabulary of made-up lines, and an untrained model for it: what tests translate and score with."""

from __future__ import annotations

import random

import pytest
import torch

from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.transformer import Transformer
from nmt_async.text.vocabulary import END, train_vocabulary

WORDS = "the a dog cat bird sees hears runs house garden in on small big red and or never"


@pytest.fixture(scope="session")
def sentences():
    """Made-up lines of 1 to 12 words."""
    chance = random.Random(1)
    return [" ".join(chance.choices(WORDS.split(), k=chance.randint(1, 12))) for _ in range(400)]


@pytest.fixture(scope="session")
def vocabulary(sentences, tmp_path_factory):
    """A real SentencePiece vocabulary of those lines."""
    return train_vocabulary(sentences, 38, "unigram", tmp_path_factory.mktemp("vocabulary") / "joint.model")


@pytest.fixture(scope="session")
def model(vocabulary):
    """A tiny untrained model for that vocabulary that ends soon and says something else for each line."""
    model = Transformer(
        ModelConfiguration(vocabulary.size, vocabulary.size, 16, 2, 24, 1, 1, "pre", "relu", 0.1, "all")
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.output_weight.mul_(2.0)
        model.output_bias.copy_(torch.randn(vocabulary.size, generator=generator))
        model.output_bias[END] += 1.0
    return model
