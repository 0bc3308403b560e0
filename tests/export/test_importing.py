"""Marian's models are imported as they are, or refused with the reason; nothing in the file is believed."""

from __future__ import annotations

import itertools
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import SIZES, configuration_of, marian, with_configuration

from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import UserError
from nmt_async.export.conversion import import_model
from nmt_async.export.marian import export_marian
from nmt_async.export.npz import write_npz
from nmt_async.export.options import ImportOptions
from nmt_async.export.verification import by_marian, verified
from nmt_async.model.configuration import DECODER_AUTOREG
from nmt_async.text.batch import Batch, pad
from nmt_async.translate.options import DecodingOptions

PRE = {"transformer-preprocess": "n", "transformer-postprocess": "da", "transformer-postprocess-top": "n"}
SSRU = {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru"}
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def trained_by_marian(text, vocabularies, tmp_path_factory):
    """Trains a small model with Marian for a moment; the file. ``vocabularies`` are joint, or source and target."""

    def train(vocabs=("joint", "joint"), **options) -> Path:
        pytest.importorskip("pymarian")
        folder = tmp_path_factory.mktemp("marian")
        values = {
            "type": "transformer", "dim-emb": 32, "transformer-heads": 2, "transformer-dim-ffn": 48, "enc-depth": 2,
            "dec-depth": 1, "after-batches": 25, "mini-batch": 32, "learn-rate": 0.005, "seed": 1, **options,
        }  # fmt: skip
        typed = [word for name, value in values.items() for word in (f"--{name}", *([] if value is True else [value]))]
        marian(
            "train", "--model", folder / "model.npz", "--train-sets", text / "train.en", text / "train.de",
            "--vocabs", *(vocabularies[name] for name in vocabs), *typed,
        )  # fmt: skip
        return folder / "model.npz"

    return train


@pytest.fixture(scope="session")
def post(trained_by_marian):
    """One with normalisation after sub-layers and tied matrices."""
    return trained_by_marian(**{"tied-embeddings-all": True, "transformer-ffn-activation": "relu"})


def imported(model: Path, out: Path, *vocabs: Path) -> LoadedModel:
    return import_model(ImportOptions(vocabs=vocabs, out=out), model)  # type: ignore[arg-type]


def arrays_of(model: Path) -> Arrays:
    with np.load(model) as arrays:
        return dict(arrays)


def same_arrays(one: Path, other: Path) -> None:
    first, second = arrays_of(one), arrays_of(other)
    assert first.keys() == second.keys()
    for name in first.keys() - {"special:model.yml"}:
        assert first[name].shape == second[name].shape
        assert first[name].tobytes() == second[name].tobytes(), name


def our_scores(loaded: LoadedModel, pairs: list[tuple[str, str]]) -> list[float]:
    found = []
    for source, target in pairs:
        ids = loaded.source_vocabulary.encode(source), loaded.target_vocabulary.encode(target)
        with torch.no_grad():
            logits, correct = loaded.model.eval()(Batch(*pad([ids[0]]), *pad([ids[1]])))
        found.append(-torch.nn.functional.cross_entropy(logits, correct, reduction="sum").item())
    return found


def marians_scores(model: Path, vocabs: tuple[Path, Path], pairs: list[tuple[str, str]], place: Path) -> list[float]:
    for side in (0, 1):
        (place / str(side)).write_text("".join(f"{pair[side]}\n" for pair in pairs))
    out = marian("score", "--model", model, "--vocabs", *vocabs, "--train-sets", place / "0", place / "1")
    return [float(line) for line in out.split()]


@pytest.fixture(scope="session")
def student(trained_by_marian):
    """One of the kind that translates in browsers."""
    return trained_by_marian(**{**SSRU, "dec-depth": 2, "after-batches": 120, "tied-embeddings-all": True,
                                "transformer-ffn-activation": "relu"})  # fmt: skip


@pytest.mark.parametrize("kind", ["post", "student"])
def test_a_model_that_marian_trained_translates_here_as_there(request, kind, vocabularies, pairs, lines, tmp_path):
    model, vocabs = request.getfixturevalue(kind), (vocabularies["joint"],) * 2
    loaded = imported(model, tmp_path / "run", *vocabs)
    export_marian(loaded, tmp_path)  # for its decoder.yml
    same_arrays(model, tmp_path / "model.npz")
    (tmp_path / "model.npz").write_bytes(model.read_bytes())
    options = DecodingOptions(beam_size=1)
    found = verified(loaded, lines, by_marian(tmp_path, loaded, lines, options), options)
    assert found.share >= 0.9  # Marian's limit of length is another
    assert found.score_difference < 1e-4
    assert our_scores(loaded, pairs) == pytest.approx(marians_scores(model, vocabs, pairs, tmp_path), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {**PRE, "tied-embeddings": True, "transformer-ffn-activation": "gelu"},
        {**PRE, "type": "transformer-new", "transformer-ffn-activation": "swish"},
        {"type": "transformer-new", "transformer-ffn-activation": "relu", "tied-embeddings": True},
        {**PRE, **SSRU, "dec-depth": 2, "tied-embeddings": True},
        {**SSRU, "type": "transformer-new", "dec-depth": 2},
        {"transformer-postprocess": "da", "transformer-ffn-activation": "relu", "tied-embeddings": True},
    ],
    ids=["pre", "pre-new", "post-new", "pre-ssru", "post-new-ssru", "none"],
)
def test_other_transformers_of_marian_score_here_as_there(trained_by_marian, vocabularies, pairs, options, tmp_path):
    vocabs = vocabularies["source"], vocabularies["target"]
    model = trained_by_marian(("source", "target"), **options)
    loaded = imported(model, tmp_path / "run", *vocabs)
    assert our_scores(loaded, pairs) == pytest.approx(marians_scores(model, vocabs, pairs, tmp_path), abs=1e-3)


@pytest.mark.parametrize(
    ("norm", "decoder_autoreg"), [*itertools.product(["pre", "post"], DECODER_AUTOREG), ("none", "self-attention")]
)
@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_what_is_exported_and_imported_again_is_the_same_bit_for_bit(saved, norm, tied, decoder_autoreg, tmp_path):
    before = load_model(saved(norm=norm, tied=tied, decoder_autoreg=decoder_autoreg))
    (tmp_path / "out").mkdir()
    export_marian(before, tmp_path / "out")
    names = ("vocab.spm",) * 2 if tied == "all" else ("source.spm", "target.spm")
    after = imported(tmp_path / "out" / "model.npz", tmp_path / "run", *(tmp_path / "out" / name for name in names))
    assert after.configuration == before.configuration
    there = dict(after.model.named_parameters())
    for name, parameter in before.model.named_parameters():
        assert torch.equal(parameter, there[name]), name


@pytest.fixture(scope="session")
def exported(saved, tmp_path_factory):
    """A model file that is right, without Marian."""
    folder = tmp_path_factory.mktemp("exported")
    export_marian(load_model(saved()), folder)
    return folder / "model.npz"


def test_half_precision_is_read(exported, vocabularies, tmp_path):
    arrays = {name: array.astype(np.float16) if array.dtype == np.float32 else array
              for name, array in arrays_of(exported).items()}  # fmt: skip
    write_npz(tmp_path / "half.npz", arrays)
    loaded = imported(tmp_path / "half.npz", tmp_path / "run", *(vocabularies["joint"],) * 2)
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_what_scales_activations_in_8_bits_changes_nothing(exported, vocabularies, tmp_path):
    alphas = {f"{name}_QuantMultA": np.array([9.5], np.float32) for name in ("encoder_l1_self_Wq", "none")}
    write_npz(tmp_path / "model.alphas.npz", arrays_of(exported) | alphas)
    for name, model in (("with", tmp_path / "model.alphas.npz"), ("without", exported)):
        imported(model, tmp_path / name, *(vocabularies["joint"],) * 2)
    vectors = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert vectors[0] == vectors[1]


def said(old: str, new: str) -> Callable[[Arrays], Arrays]:
    """Another configuration in the file."""

    def change(arrays: Arrays) -> Arrays:
        text = configuration_of(arrays)
        assert old in text
        return with_configuration(arrays, text.replace(old, new))

    return change


def other(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Arrays], Arrays]:
    """Another array in the file, or none of that name."""

    def spoil(arrays: Arrays) -> Arrays:
        changed = change(arrays.get(name, np.zeros(1, np.float32)))
        kept = {key: array for key, array in arrays.items() if key != name}
        return kept if changed is None else {**kept, name: changed}

    return spoil


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "s2s": (said("type: transformer", "type: s2s"), "of type 's2s'"),
    "average attention": (said("autoreg: self-attention", "autoreg: average-attention"), "only 'self-attention' and"),
    "no cell": (said("autoreg: self-attention", "autoreg: rnn"), "dec-cell is None"),
    "another cell": (said("autoreg: self-attention", "autoreg: rnn\ndec-cell: gru"), "dec-cell is 'gru', and only"),
    "a normalised cell": (
        lambda arrays: said("autoreg: self-attention", "autoreg: rnn\ndec-cell: ssru")(
            said("layer-normalization: false", "layer-normalization: true")(arrays)
        ),
        "a layer normalisation of its own",
    ),
    "ssru without its parameters": (
        said("autoreg: self-attention", "autoreg: rnn\ndec-cell: ssru"),
        "'decoder_l1_rnn_W' is missing",
    ),
    "tied layers": (said("tied-layers: []", "tied-layers: [1, 1]"), "transformer-tied-layers"),
    "learnt positions": (said("train-position-embeddings: false", "train-position-embeddings: true"), "position"),
    "deep filters": (said("transformer-ffn-depth: 2", "transformer-ffn-depth: 3"), "ffn-depth is 3"),
    "norms": (said("postprocess: dan", "postprocess: dhn"), "only n, da and top n, dan alone, or da alone"),
    "ssru without norms": (
        lambda arrays: said("autoreg: self-attention", "autoreg: rnn\ndec-cell: ssru")(
            said("postprocess: dan", "postprocess: da")(arrays)
        ),
        "SSRUs and no layer normalisation",
    ),
    "activation": (said("activation: relu", "activation: tanh"), "'tanh', and not one of"),
    "old gelu": (
        lambda arrays: said("activation: relu", "activation: gelu")(said("nmt-async 0", "v1.11.0 0")(arrays)),
        "may have computed another gelu",
    ),
    "tied source": (
        lambda arrays: said("all: true", "all: false")(said("src: false", "src: true")(arrays)),
        "source and target embeddings are one",
    ),
    "unknown": (said("ulr: false", "ulr: false\ntransformer-something: 3"), "of which this version knows nothing"),
    "no size": (said("dim-emb: 32", ""), "does not say dim-emb"),
    "a size as text": (said("dim-emb: 32", "dim-emb: [32]"), "dim_emb cannot be"),
    "a huge size": (said("enc-depth: 2", "enc-depth: 999999999"), "enc_depth"),
    "a size it has not": (said("dim-emb: 32", "dim-emb: 65536"), "has shape"),
    "laughs": (lambda arrays: with_configuration(arrays, LAUGHS), "is not YAML"),
    "an object": (lambda arrays: with_configuration(arrays, "type: !!python/object/apply:os.system ['x']"), "not YAML"),
    "no configuration": (other("special:model.yml", lambda _: None), "holds no special:model.yml"),
    "a long configuration": (other("special:model.yml", lambda _: np.zeros(2**21, np.int8)), "bytes"),
    "one missing": (other("encoder_l2_self_Wk", lambda _: None), "'encoder_l2_self_Wk' is missing"),
    "one more": (other("encoder_l3_self_Wk", lambda _: np.zeros((2, 2), np.float32)), "'encoder_l3_self_Wk'"),
    "a shape": (other("encoder_l1_ffn_W1", lambda array: array.T.copy()), "has shape"),
    "a type": (other("encoder_l1_ffn_W1", lambda array: array.astype(np.int8)), "has type 'int8'"),
    "not finite": (other("encoder_l1_ffn_b1", lambda array: array * np.nan), "not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_computed_is_refused_with_the_reason(exported, vocabularies, case, tmp_path):
    change, reason = REFUSED[case]
    write_npz(tmp_path / "model.npz", change(arrays_of(exported)))
    with pytest.raises(UserError, match=reason):
        imported(tmp_path / "model.npz", tmp_path / "run", *(vocabularies["joint"],) * 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz"]


class Harm:
    """A pickle that leaves a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harm-was-done",)


def test_a_pickle_in_the_file_is_not_loaded(exported, vocabularies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harm = np.array([Harm()], dtype=object)
    with (tmp_path / "model.npz").open("wb") as file:
        np.savez(file, allow_pickle=True, **{**arrays_of(exported), "Wemb": harm})
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("special:model.yml.npy", pickle.dumps(Harm()))
    for name in ("model.npz", "raw.npz"):
        with pytest.raises(UserError, match="cannot be"):
            imported(tmp_path / name, tmp_path / "run", *(vocabularies["joint"],) * 2)
    assert not (tmp_path / "harm-was-done").exists()


def test_a_file_that_is_none_of_marians_is_named(vocabularies, tmp_path):
    vocabs = (vocabularies["joint"],) * 2
    (tmp_path / "text.npz").write_text("no archive")
    os.mkfifo(tmp_path / "pipe.npz")
    for name, reason in (("text", "not an .npz"), ("pipe", "not an ordinary file"), ("absent", "No such file")):
        with pytest.raises(UserError, match=rf"{name}\.npz cannot be .*{reason}"):
            imported(tmp_path / f"{name}.npz", tmp_path / "run", *vocabs)


def test_vocabularies_must_be_the_models_own(exported, vocabularies, tmp_path):
    joint, target = vocabularies["joint"], vocabularies["target"]
    with pytest.raises(UserError, match=rf"has {SIZES['target']} subwords and .* for {SIZES['joint']}"):
        imported(exported, tmp_path / "run", joint, target)
    with pytest.raises(UserError, match="--vocabs SOURCE TARGET is missing"):
        import_model(ImportOptions(out=tmp_path / "run"), exported)


def test_a_folder_that_is_in_use_is_not_touched(exported, vocabularies, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        imported(exported, tmp_path, *(vocabularies["joint"],) * 2)
