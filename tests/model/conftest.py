from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nmt_async.model.build import build_model
from nmt_async.model.configuration import OF_ONE_MODEL, ModelConfiguration
from nmt_async.model.translation_model import TranslationModel
from nmt_async.text.batch import Batch, pad

SIZES: dict[str, Any] = {
    "source_vocabulary": 13, "target_vocabulary": 13, "dim_emb": 16, "heads": 2, "dim_ffn": 24, "enc_depth": 2,
    "dec_depth": 2, "norm": "pre", "activation": "relu", "dropout": 0.0, "tied": "all", "max_positions": 8,
    "dim_rnn": 12,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TranslationModel]:
    """Makes a tiny model in double precision, with biases that are not zero, from changes to its sizes."""

    def make(seed: int = 1, model: str = "transformer", **changes: Any) -> TranslationModel:
        values = {name: SIZES[name] for name in SIZES if OF_ONE_MODEL.get(name, model) == model}
        made = build_model(ModelConfiguration.from_mapping({"model": model, **values, **changes}), seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if "bias" in name:
                    parameter.uniform_(-0.5, 0.5, generator=generator)
        return made.double()

    return make


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., Batch]:
    """Makes a batch with sentences of the given lengths, end marks counted."""

    def make(source_lengths: list[int], target_lengths: list[int], seed: int = 1, vocabulary: int = 13) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def rows(lengths: list[int]) -> list[list[int]]:
            return [
                [*torch.randint(1, vocabulary, (length - 1,), generator=generator).tolist(), 0] for length in lengths
            ]

        return Batch(*pad(rows(source_lengths)), *pad(rows(target_lengths)))

    return make
