"""``nmt-async quantize`` as a user types it, and the commands that read what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nmt_async.cli.main import run
from small_model import save_small_model

from nmt_async import Scorer, Translator
from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checksums import note_hashes, sha256_of
from nmt_async.model.packed_matrix import is_packed

TEXT = ["the dog sees the cat", "a small bird", "", "never and or"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text("\n".join(TEXT) + "\n")
    return path


@pytest.mark.parametrize("bits", ["2", "3", "4", "8"])
@pytest.mark.parametrize("scheme", ["log", "linear"])
def test_every_command_reads_a_quantised_model(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: str, scheme: str
) -> None:
    out = tmp_path / "small"
    assert run(["quantize", str(model), str(out), "--bits", bits, "--scheme", scheme]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out} holds ")
    assert f"parameters in {bits} bits" in said
    assert (out / "model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size
    description = json.loads((out / "model.json").read_text())
    assert description["quantization"] == {"bits": int(bits), "scheme": scheme, "biases": False}
    assert run(["translate", str(out), "-i", str(text), "-o", str(tmp_path / "translated")]) == 0
    assert len((tmp_path / "translated").read_text().splitlines()) == len(TEXT)
    assert run(["score", str(out), "--source", str(text), "--target", str(text)]) == 0
    assert run(["evaluate", str(out), "--source", str(text), "--reference", str(text), "--bootstrap", "0"]) == 0


def test_packed_and_unpacked_translate_and_score_the_same(model: Path, tmp_path: Path) -> None:
    assert run(["quantize", str(model), str(tmp_path / "small"), "--quiet"]) == 0
    translator, scorer = Translator(tmp_path / "small", device="cpu"), Scorer(tmp_path / "small", device="cpu")
    assert is_packed(translator.loaded.model)
    found = translator.translate(TEXT * 3, beam_size=3)
    scores = [each.score for each in scorer.score(TEXT, TEXT[::-1])]
    whole = load_model(tmp_path / "small")
    assert not is_packed(whole.model)
    translator.loaded = scorer.loaded = whole
    again = translator.translate(TEXT * 3, beam_size=3)
    assert [each.text for each in found] == [each.text for each in again]
    assert [each.score for each in found] == pytest.approx([each.score for each in again], abs=1e-4)
    assert scores == pytest.approx([each.score for each in scorer.score(TEXT, TEXT[::-1])], abs=1e-4)


def test_only_matrices_change_and_each_value_is_near(model: Path, tmp_path: Path) -> None:
    assert run(["quantize", str(model), str(tmp_path / "small"), "--bits", "8", "--scheme", "linear", "--quiet"]) == 0
    before, after = load_model(model).model.state_dict(), load_model(tmp_path / "small").model.state_dict()
    for name, tensor in before.items():
        if tensor.dim() == 2:
            assert 0 < (after[name] - tensor).abs().max() <= 0.01 * tensor.abs().max()
        else:
            assert torch.equal(after[name], tensor)
    assert run(["quantize", str(model), str(tmp_path / "all"), "--biases", "--quiet"]) == 0
    biases = load_model(tmp_path / "all").model.state_dict()
    assert not torch.equal(biases["output_bias"], before["output_bias"])
    assert torch.equal(biases["decoder_top.weight"], before["decoder_top.weight"])


def test_it_is_averaged_and_computed_in_int8(model: Path, text: Path, tmp_path: Path) -> None:
    assert run(["quantize", str(model), str(tmp_path / "small"), "--quiet"]) == 0
    assert run(["average", str(tmp_path / "small"), str(model), "--out", str(tmp_path / "mean"), "--quiet"]) == 0
    assert load_model(tmp_path / "mean").quantization is None
    out = str(tmp_path / "translated")
    assert run(["translate", str(tmp_path / "small"), "-i", str(text), "-o", out, "--precision", "int8"]) == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["{model}", "{new}", "--bits", "5"], "--bits: '5' is no number of bits that models are quantised to"),
        (["{model}", "{new}", "--scheme", "cubic"], "--scheme: 'cubic' is not known; choose one of log, linear."),
        (["{small}", "{new}"], "is quantised already (4-bit log); name the model it was made of."),
        (["{text}", "{new}"], "text is a file; give the folder of a run"),
        (["{empty}", "{new}"], "holds no model"),
        (["{model}", "{small}"], "is a folder that is not empty; name a new one."),
        (["{model}", "{text}"], "is a file; name a folder."),
    ],
)
def test_a_mistake_is_one_sentence(
    model: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: list[str], message: str
) -> None:
    names = {"model": model, "text": text, "small": tmp_path / "small", "empty": tmp_path / "empty"}
    names["new"] = tmp_path / "new"
    names["empty"].mkdir()
    assert run(["quantize", str(model), str(names["small"]), "--quiet"]) == 0
    capsys.readouterr()
    assert run(["quantize", *(word.format(**names) for word in typed)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not names["new"].exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "describes no model that this version knows (5 bits are not among 2, 3, 4, 8)"),
        ({"scheme": "cubic"}, "describes no model that this version knows (the scheme 'cubic' is not among"),
        ({"bits": 3}, "does not fit model.json"),
        (None, "has format 3, this version reads 2; use the version of nmt-async that wrote it."),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object] | None, message: str
) -> None:
    folder = tmp_path / "small"
    assert run(["quantize", str(model), str(folder), "--quiet"]) == 0
    description = json.loads((folder / "model.json").read_text())
    if change is None:
        del description["quantization"]
    else:
        description["quantization"] |= change
    (folder / "model.json").write_text(json.dumps(description))
    note_hashes(folder, {path.name: sha256_of(path) for path in folder.iterdir() if path.name != "SHA256SUMS"})
    (tmp_path / "text").write_text("a dog\n")
    assert run(["translate", str(folder), "-i", str(tmp_path / "text")]) == 2
    assert message in capsys.readouterr().err


def test_what_is_exported_computes_as_the_quantised_model(model: Path, tmp_path: Path) -> None:
    assert run(["quantize", str(model), str(tmp_path / "small"), "--bits", "3", "--quiet"]) == 0
    assert run(["export", str(tmp_path / "small"), str(tmp_path / "marian"), "--quiet"]) == 0
    vocabulary = str(tmp_path / "marian" / "vocab.spm")
    words = ["import", str(tmp_path / "marian" / "model.npz"), "--vocabs", vocabulary, vocabulary]
    assert run([*words, "--out", str(tmp_path / "back"), "--quiet"]) == 0
    before, after = load_model(tmp_path / "small"), load_model(tmp_path / "back")
    assert after.quantization is None
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor), name
    engine = Translator(tmp_path / "small", device="cpu", engine="ctranslate2")
    ours = Translator(tmp_path / "small", device="cpu")
    found, expected = (each.translate(TEXT, beam_size=1) for each in (engine, ours))
    assert [each.text for each in found] == [each.text for each in expected]
