from __future__ import annotations

import shutil

import pytest
import torch

from nmt_async.checkpoints.averaging import average_models
from nmt_async.checkpoints.model_folder import load_model, save_model
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.vocabulary import train_vocabulary


@pytest.fixture
def saved(tmp_path, model, vocabulary):
    """Saves a model of the test's configuration, or another, with parameters of its own."""

    def save(name, seed, vocabulary=vocabulary, **changes):
        values = {**model.configuration.as_mapping(), **changes}
        other = build_model(ModelConfiguration.from_mapping(values), seed=seed)
        layout = FlatLayout(other)
        named = layout.named(layout.gather(other))
        save_model(tmp_path / name, other.configuration, named, vocabulary.path, vocabulary.path)
        return tmp_path / name

    return save


def test_the_mean_of_models_is_a_model(saved, tmp_path):
    folders = [saved(f"model-{seed}", seed) for seed in range(3)]
    average_models(folders, tmp_path / "mean")
    states = [load_model(folder).model.state_dict() for folder in folders]
    for name, parameter in load_model(tmp_path / "mean").model.state_dict().items():
        assert torch.allclose(parameter, torch.stack([state[name] for state in states]).mean(dim=0), atol=1e-7)


def test_the_mean_of_a_model_with_itself_is_that_model(saved, tmp_path):
    folder = saved("model", 1)
    average_models([folder] * 3, tmp_path / "mean")
    for name in ("model.safetensors", "vocabulary.model", "model.json"):
        assert (tmp_path / "mean" / name).read_bytes() == (folder / name).read_bytes()


def test_dropout_may_differ(saved, tmp_path):
    average_models([saved("one", 1), saved("other", 2, dropout=0.3)], tmp_path / "mean")
    assert load_model(tmp_path / "mean").configuration.dropout == 0.1


def test_models_that_differ_are_refused_and_nothing_is_left(saved, tmp_path, sentences):
    one = saved("one", 1)
    with pytest.raises(UserError, match=r"one has dim-ffn 24 and .*other 32; only models of the same configuration"):
        average_models([one, saved("other", 1, dim_ffn=32)], tmp_path / "mean")
    vocabulary = train_vocabulary(sentences[:300], 38, "bpe", tmp_path / "bpe.model")
    with pytest.raises(UserError, match="have different source vocabularies; only models with the same ones"):
        average_models([one, saved("bpe", 1, vocabulary=vocabulary)], tmp_path / "mean")
    damaged = shutil.copytree(one, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged/model.safetensors is damaged"):
        average_models([one, damaged], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_lies_there_already_is_not_overwritten(saved, tmp_path):
    one = saved("one", 1)
    before = (one / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="is a folder that is not empty; name a new one"):
        average_models([one], one)
    with pytest.raises(UserError, match="is a file; name a folder"):
        average_models([one], one / "model.json")
    assert (one / "model.safetensors").read_bytes() == before
    (tmp_path / "empty").mkdir()
    average_models([one], tmp_path / "empty")
    assert load_model(tmp_path / "empty")
