from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch

from nmt_async.checkpoints.model_folder import load_model, model_damages, save_model
from nmt_async.checksums import note_hashes, noted_hashes
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration, ModelOptions
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.transformer import Transformer
from nmt_async.text.vocabulary import train_vocabulary


def save(folder, model, source, target):
    layout = FlatLayout(model)
    save_model(folder, model.configuration, layout.named(layout.gather(model)), source.path, target.path)


@pytest.fixture
def folder(tmp_path, model, vocabulary):
    save(tmp_path / "model", model, vocabulary, vocabulary)
    return tmp_path / "model"


def test_a_saved_model_is_loaded_bit_for_bit(folder, model, vocabulary):
    loaded = load_model(folder)
    assert loaded.configuration == model.configuration
    assert all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert loaded.source_vocabulary.encode("the dog") == vocabulary.encode("the dog")
    names = ["SHA256SUMS", "model.json", "model.safetensors", "vocabulary.model"]
    assert sorted(path.name for path in folder.iterdir()) == names
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_a_model_is_loaded_without_torchs_compiler(folder):
    """To import it takes longer than all else that a translation of one line needs."""
    program = (
        "import pathlib, sys; from nmt_async.checkpoints import load_model; load_model(pathlib.Path(sys.argv[1])); "
        "print('torch' in sys.modules, 'torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    words = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_two_vocabularies_are_kept_apart(tmp_path, vocabulary, sentences):
    other = train_vocabulary(sentences[:100], 36, "bpe", tmp_path / "other.model")
    model = Transformer(ModelConfiguration(vocabulary.size, 36, 8, 2, 8, 1, 1, "post", "gelu", 0.0, "target"))
    save(tmp_path / "model", model, vocabulary, other)
    loaded = load_model(tmp_path / "model")
    assert (loaded.source_vocabulary.size, loaded.target_vocabulary.size) == (38, 36)


def test_a_recurrent_model_comes_back_as_it_was_saved(tmp_path, vocabulary):
    options = ModelOptions(model="rnn", preset="tiny", dim_emb=8, dim_rnn=12, dec_depth=2)
    model = build_model(options.configuration(vocabulary.size, vocabulary.size, joint=True), seed=3)
    save(tmp_path / "model", model, vocabulary, vocabulary)
    loaded = load_model(tmp_path / "model")
    assert type(loaded.model) is type(model)
    assert loaded.configuration == model.configuration
    assert all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def describe_anew(folder, description):
    """Writes ``model.json`` with its hash, as one does who means it."""
    note_hashes(folder, {**noted_hashes(folder), "model.json": hashlib.sha256(description.encode()).hexdigest()})
    (folder / "model.json").write_text(description)


def test_a_description_from_before_there_were_two_models_is_a_transformers(folder):
    description = json.loads((folder / "model.json").read_text())
    assert description["configuration"].pop("model") == "transformer"
    describe_anew(folder, json.dumps(description))
    assert isinstance(load_model(folder).model, Transformer)


def make_format_1(folder):
    """The folder as versions before SHA256SUMS wrote it."""
    description = json.loads((folder / "model.json").read_text())
    hashes = {name: digest for name, digest in noted_hashes(folder).items() if name != "model.json"}
    (folder / "model.json").write_text(json.dumps({**description, "format": 1, "sha256": hashes}))
    (folder / "SHA256SUMS").unlink()


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.model"])
def test_a_model_of_format_1_is_read_and_checked(folder, model, name):
    make_format_1(folder)
    assert load_model(folder).configuration == model.configuration
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged \(its SHA-256 is [0-9a-f]{8}…, noted was [0-9a-f]{8}…\); use"):
        load_model(folder)


@pytest.mark.parametrize("hashes", [None, [], {}, {"../outside": "0", "model.safetensors": "0"}])
def test_a_description_of_format_1_lists_the_models_files(folder, hashes):
    make_format_1(folder)
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**description, "sha256": hashes}))
    with pytest.raises(UserError, match=r"model\.json is damaged \(it does not list the model's files\)"):
        load_model(folder)


def test_a_run_gives_its_best_model_or_else_its_last(tmp_path, folder):
    run = tmp_path / "run"
    for name in ("step-1", "step-2"):
        shutil.copytree(folder, run / "checkpoints" / name)
    (run / "last").write_text("checkpoints/step-2\n")
    assert load_model(run).folder == run / "checkpoints" / "step-2"
    (run / "best").write_text("checkpoints/step-1\n")
    assert load_model(run).folder == run / "checkpoints" / "step-1"


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.model", "model.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_or_missing_file_is_named(folder, name, damage):
    path = folder / name
    content, noted = bytearray(path.read_bytes()), noted_hashes(folder)[name]
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    if damage == "remove":
        problem = (
            f"{folder} holds no model: " if name == "model.json" else f"{path} is missing; use another checkpoint."
        )
    else:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        problem = f"{path} is damaged (its SHA-256 is {found[:8]}…, noted was {noted[:8]}…); use another checkpoint."
    assert str(caught.value).startswith(problem)


def test_every_damaged_file_is_named(folder):
    for name in ("model.safetensors", "model.json"):
        (folder / name).write_bytes(b"")
    assert [phrase.split()[0] for phrase in model_damages(folder)] == ["model.safetensors", "model.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "SHA256SUMS is damaged (line 1 is not a SHA-256 and the name of a file)"),
        (f"{'0' * 64}  model.json\n", "SHA256SUMS is damaged (it does not list the model's files)"),
        ("0\n", "SHA256SUMS is damaged (line 1 is not a SHA-256 and the name of a file)"),
        (f"{'0' * 64}  ../../outside\n", "SHA256SUMS is damaged (line 1"),
        (None, "SHA256SUMS is missing"),
    ],
)
def test_damaged_hashes_are_named(folder, text, problem):
    (folder / "SHA256SUMS").unlink()
    if text is not None:
        (folder / "SHA256SUMS").write_text(text)
    with pytest.raises(UserError, match=re.escape(problem)) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda description: description.update(format=3), "has format 3, this version reads 2; use the version"),
        (lambda description: description.pop("configuration"), "is not a model's description"),
        (lambda description: description["configuration"].update(unheard_of=1), "describes no model"),
        (lambda description: description["configuration"].pop("heads"), "describes no model"),
        (lambda description: description["configuration"].update(model="lstm"), "describes no model"),
        (lambda description: description["configuration"].update(model="rnn"), "describes no model"),
        (lambda description: description["configuration"].update(dim_rnn=8), "describes no model"),
        (lambda description: description.update(configuration=[]), "describes no model"),
        (lambda description: description["configuration"].update(activation="sigmoid"), "describes no model"),
        (lambda description: description["configuration"].update(enc_depth=2), "does not fit"),
        (lambda description: description["configuration"].update(dim_ffn=30), "does not fit"),
        (lambda description: description["configuration"].update(source_vocabulary=39), "subwords"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(folder, change, message):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    change(description)
    describe_anew(folder, json.dumps(description))
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00"])
def test_a_description_that_is_torn_is_named(folder, content):
    (folder / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        load_model(folder)
    describe_anew(folder, content)
    with pytest.raises(UserError, match=r"model\.json is (damaged|not a model's description)"):
        load_model(folder)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        load_model(tmp_path / "file")
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "best").write_text("checkpoints/step-1")
    with pytest.raises(UserError, match="best names 'checkpoints/step-1'"):
        load_model(tmp_path)


def test_a_save_that_fails_leaves_no_model(tmp_path, model, vocabulary):
    layout = FlatLayout(model)
    named = layout.named(layout.gather(model))
    folder = tmp_path / "model"
    save_model(folder, model.configuration, named, vocabulary.path, vocabulary.path)
    with pytest.raises(OSError, match="absent"):
        save_model(folder, model.configuration, named, tmp_path / "absent", vocabulary.path)
    with pytest.raises(UserError, match="holds no model"):
        load_model(folder)
