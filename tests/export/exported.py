"""Model folders to export, and Marian as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt_async.checkpoints.model_folder import save_model
from nmt_async.export.marian import CONFIGURATION
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import Vocabulary

SIZES = {"joint": 160, "source": 110, "target": 130}
SMALL: dict[str, Any] = {
    "dim_emb": 32, "heads": 2, "dim_ffn": 48, "enc_depth": 2, "dec_depth": 1, "norm": "post", "activation": "relu",
    "dropout": 0.1, "tied": "all",
}  # fmt: skip
RECURRENT: dict[str, Any] = {
    "model": "rnn", "dim_emb": 16, "dim_rnn": 12, "enc_depth": 1, "dec_depth": 1, "dropout": 0.1, "tied": "all",
}  # fmt: skip
UPDATES = 60
PATIENCE = 90.0


def build(folder: Path, vocabularies: dict[str, Path], pairs: Sequence[tuple[str, str]] = (), **sizes: Any) -> Path:
    """A model folder, trained for a moment, so that its translations end.

    Args:
        pairs: what it learns; none: it stays as it was initialised.
    """
    names = ("joint", "joint") if sizes["tied"] == "all" else ("source", "target")
    source, target = (Vocabulary(vocabularies[name]) for name in names)
    words = {"source_vocabulary": source.size, "target_vocabulary": target.size}
    configuration = ModelConfiguration.from_mapping({**words, **sizes})
    model = build_model(configuration, seed=3)
    if pairs:
        train(model, *([np.array(vocabulary.encode(pair[side])) for pair in pairs]
                       for side, vocabulary in enumerate((source, target))))  # fmt: skip
    layout = FlatLayout(model)
    save_model(folder, configuration, layout.named(layout.gather(model)), source.path, target.path)
    return folder


def train(model: TranslationModel, sources: list[np.ndarray], targets: list[np.ndarray]) -> None:
    """A few updates on all sentences at once."""
    batch, optimizer = Batch(*pad(sources), *pad(targets)), torch.optim.Adam(model.parameters(), lr=0.01)
    model.eval()  # without dropout it learns faster
    for _ in range(UPDATES):
        loss = torch.nn.functional.cross_entropy(*model(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def marian(*arguments: Any) -> str:
    """What a command of ``pymarian`` that computes prints, on one thread."""
    return pymarian(*arguments, "--cpu-threads", "1", "--workspace", "128", "--quiet")


def pymarian(*arguments: Any) -> str:
    """What the command ``pymarian`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pymarian", *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def configuration_of(arrays: dict[str, np.ndarray]) -> str:
    """The text of the configuration in a model file."""
    return arrays[CONFIGURATION].tobytes().rstrip(b"\0").decode()


def with_configuration(arrays: dict[str, np.ndarray], text: str) -> dict[str, np.ndarray]:
    """The arrays with another configuration."""
    return {**arrays, CONFIGURATION: np.frombuffer(text.encode() + b"\0", np.int8)}
