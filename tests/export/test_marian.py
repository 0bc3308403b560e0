"""What is exported to Marian translates there as here: the same texts with the same scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from exported import RECURRENT, SMALL, build, marian

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import UserError
from nmt_async.export.marian import export_marian
from nmt_async.export.verification import by_marian, verified
from nmt_async.translate.options import DecodingOptions

pytestmark = pytest.mark.numeric

SCORE_ERROR = 2e-5
"""A log-probability is a logit less the logarithm of a sum, both of a magnitude up to 16, where neighbours in float32
are 2^-20 apart. Four such steps for each of n subwords, all in one direction, divided by n^0.6, make 2e-5 at n = 60."""

MARIANS_EPSILON = 1e-5
"""Of layer normalisation, where Marian's type is ``transformer-new``: `src/layers_new/neuralnet.h`; ours is 1e-6."""

CASES = [
    {"norm": "post", "tied": "all", "activation": "relu"},
    {"norm": "post", "tied": "none", "activation": "gelu"},
    {"norm": "pre", "tied": "target", "activation": "relu"},
    {"norm": "pre", "tied": "all", "activation": "swish"},
    {"norm": "none", "tied": "all", "activation": "relu"},
    {"norm": "none", "tied": "none", "activation": "relu"},
    {"norm": "post", "tied": "all", "decoder_autoreg": "ssru"},
    {"norm": "pre", "tied": "target", "decoder_autoreg": "ssru"},
]


@pytest.fixture
def exported(saved, trained, tmp_path):
    """Exports a model of the sizes given; the loaded model and the folder."""

    def make(after_training=False, **sizes):
        loaded = load_model((trained if after_training else saved)(**sizes))
        export_marian(loaded, tmp_path)
        return loaded, tmp_path

    return make


@pytest.mark.parametrize("sizes", CASES, ids=lambda sizes: "-".join(sizes.values()))
def test_marian_finds_the_same_translations_and_scores(exported, lines, sizes):
    pytest.importorskip("pymarian")
    loaded, folder = exported(True, **sizes)
    if sizes["norm"] == "pre" and "decoder_autoreg" not in sizes:
        for norm in (module for module in loaded.model.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.eps = MARIANS_EPSILON
    for beam_size, share in ((1, 0.95), (5, 0.95)):  # searches differ in when they end
        options = DecodingOptions(beam_size=beam_size)
        found = verified(loaded, lines, by_marian(folder, loaded, lines, options), options)
        assert found.share >= share
        assert found.score_difference < SCORE_ERROR


def test_the_folder_stands_where_it_is_put(exported, lines, tmp_path, monkeypatch):
    pytest.importorskip("pymarian")
    _, folder = exported()
    moved = folder.rename(tmp_path.with_name("moved"))
    monkeypatch.chdir(moved.parent)
    (moved / "in").write_text("\n".join(lines) + "\n")
    out = marian("decode", "--config", "moved/decoder.yml", "--input", "moved/in")
    assert len(out.splitlines()) == len(lines)


def test_one_vocabulary_is_written_once_and_two_are_two(exported):
    _, folder = exported()
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.yml", "model.npz", "vocab.spm"]
    decoder = yaml.safe_load((folder / "decoder.yml").read_text())
    assert decoder["vocabs"] == ["vocab.spm", "vocab.spm"]
    assert decoder["relative-paths"] is True


def test_two_vocabularies_are_two_files(exported, vocabularies):
    _, folder = exported(tied="target")
    assert (folder / "source.spm").read_bytes() == vocabularies["source"].read_bytes()
    assert (folder / "target.spm").read_bytes() == vocabularies["target"].read_bytes()


def test_the_file_needs_no_pickle(exported):
    _, folder = exported(**SMALL)
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype in (np.float32, np.int8) for name in arrays.files)


def test_a_recurrent_model_is_refused_with_the_reason(vocabularies, tmp_path):
    loaded = load_model(build(tmp_path / "rnn", vocabularies, **RECURRENT))
    with pytest.raises(UserError, match="GRU has one bias"):
        export_marian(loaded, tmp_path)
