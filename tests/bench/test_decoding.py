"""The measurement of decoding, with its real processes and a tiny model."""

from __future__ import annotations

import pytest
from nmt_async.cli.main import run

from nmt_async.bench.decoding import measure_decoding
from nmt_async.bench.options import DecodeBenchOptions
from nmt_async.checkpoints.model_folder import save_model
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelOptions
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.vocabulary import train_vocabulary

LINES = ["a dog sees the cat", "", "the cat runs", "a cat", "the dog runs in the garden"]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    (folder / "text").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    vocabulary = train_vocabulary(LINES * 20, 17, "unigram", folder / "joint.model")

    def made(kind="transformer"):
        options = ModelOptions(preset="tiny", dim_emb=16, model=kind)
        configuration = options.configuration(vocabulary.size, vocabulary.size, True)
        model = build_model(configuration)
        layout = FlatLayout(model)
        named = layout.named(layout.gather(model))
        save_model(folder / kind, configuration, named, vocabulary.path, vocabulary.path)
        return folder / kind, folder / "text"

    return made


def test_engines_take_turns_and_are_compared_with_ctranslate2_by_hand(make):
    model, text = make()
    options = DecodeBenchOptions(input=text, beam_size=(2, 1), mini_batch=2, rounds=2, engines=("torch", "by-hand"))
    told = []
    measured = measure_decoding(options, model, lambda done, total: told.append((done, total)))
    assert told == [(done, 12) for done in range(1, 13)]
    assert measured.notes == []
    assert [(r.engine, r.beam_size) for r in measured.results] == [
        ("torch", 2), ("by-hand", 2), ("torch", 1), ("by-hand", 1),
    ]  # fmt: skip
    for result in measured.results:
        best = next(r for r in measured.results if r.engine == "by-hand" and r.beam_size == result.beam_size)
        assert len(result.rates) == len(result.token_rates) == 2
        assert result.ratios == pytest.approx([a / b for a, b in zip(result.rates, best.rates, strict=True)])
        assert result.engine == "torch" or result.same == 1.0


def test_of_an_untrained_model_every_translation_can_have_the_same_length(make):
    model, text = make()
    options = DecodeBenchOptions(input=text, beam_size=(2,), length=6, rounds=1)
    measured = measure_decoding(options, model, lambda *_: None)
    assert [result.engine for result in measured.results] == ["torch", "torch-int8", "by-hand", "by-hand-int8"]
    assert measured.notes == [
        "ctranslate2 is left out: what reaches its longest length there is translated again by torch."
    ]
    for result in measured.results:
        assert result.token_rates[0] == pytest.approx(6 * result.rates[0])


def test_what_ctranslate2_cannot_hold_is_measured_without_it(make):
    model, text = make("rnn")
    measured = measure_decoding(DecodeBenchOptions(input=text, beam_size=(1,), rounds=1), model, lambda *_: None)
    assert [(result.engine, result.ratio, result.same) for result in measured.results] == [("torch", None, None)]
    assert sum("this model is of type rnn" in note for note in measured.notes) == 3
    assert len(measured.notes) == 4


def test_mistakes_are_named(make, tmp_path):
    model, text = make()
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(UserError, match="needs --input"):
        measure_decoding(DecodeBenchOptions(), model, lambda *_: None)
    with pytest.raises(UserError, match="has no words to translate"):
        measure_decoding(DecodeBenchOptions(input=tmp_path / "empty"), model, lambda *_: None)
    with pytest.raises(UserError, match="--beam-size: 0 is too small"):
        DecodeBenchOptions(input=text, beam_size=(5, 0))


def test_bench_measures_training_unless_decode_is_named(make, tmp_path, capsys):
    model, text = make()
    assert run(["bench", str(tmp_path / "absent")]) == 2
    assert "prepare --out" in capsys.readouterr().err
    assert run(["bench", "--dump-config"]) == 2  # DATA is missing
    assert run(["bench", "data", "--rounds", "3", "--dump-config"]) == 0
    assert "rounds: 3" in capsys.readouterr().out
    assert (
        run(["bench", "decode", str(model), "-i", str(text), "--rounds", "1", "--engines", "by-hand", "-b", "2"]) == 0
    )
    assert "100.0 %" in capsys.readouterr().out
