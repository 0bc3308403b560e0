"""A model exported to CTranslate2 is the same model: its log-probabilities, its translations and their scores."""

from __future__ import annotations

import random

import ctranslate2
import pytest
import sentencepiece
import torch

from nmt_async.checkpoints.model_folder import load_model, save_model
from nmt_async.errors import UserError
from nmt_async.export.ctranslate2 import export_ctranslate2
from nmt_async.model.build import build_model
from nmt_async.model.configuration import OF_ONE_MODEL, ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import END, UNKNOWN, train_vocabulary
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

pytestmark = pytest.mark.numeric

LINES = ["the cat sees a dog", "a small bird never runs in the big garden", "dog", "red and red or red on the house"]
WORDS = f"{' '.join(LINES)} hears house bird".split()
SIZES = {"dim_emb": 16, "heads": 2, "dim_ffn": 24, "enc_depth": 2, "dec_depth": 3, "dropout": 0.1, "dim_rnn": 12,
         "max_positions": 64}  # fmt: skip


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Two vocabularies of different sizes."""
    folder = tmp_path_factory.mktemp("vocabularies")
    chance = random.Random(1)
    lines = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(200)]
    return [train_vocabulary(lines, size, "unigram", folder / f"{size}.model") for size in (38, 35)]


@pytest.fixture
def make(vocabularies, tmp_path):
    """Makes and loads a model whose every parameter matters: norms and biases are random, too."""

    def made(norm="pre", activation="relu", tied="all", model="transformer", taught=False, **others):
        source, target = vocabularies if tied != "all" else vocabularies[:1] * 2
        fields = {"norm": norm, "activation": activation, **SIZES, **others}
        fields = {name: value for name, value in fields.items() if OF_ONE_MODEL.get(name, model) == model}
        configuration = ModelConfiguration.from_mapping(
            {"model": model, "source_vocabulary": source.size, "target_vocabulary": target.size, "tied": tied, **fields}
        )
        torch.manual_seed(5)
        built = build_model(configuration)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in [] if taught else built.named_parameters():
                if "norm" in name or "top" in name or "bias" in name:
                    parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5, generator=generator))
        if taught:
            teach(built, source, target)
        layout = FlatLayout(built)
        folder = tmp_path / "model"
        save_model(folder, configuration, layout.named(layout.gather(built)), source.path, target.path)
        return load_model(folder)

    return made


def teach(model, source, target):
    """Lets the model learn a little to say what it reads."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    chance = random.Random(2)
    for _ in range(150):
        lines = [" ".join(chance.choices(WORDS, k=chance.randint(1, 8))) for _ in range(32)]
        logits, words = model(Batch(*pad(source.encode_lines(lines)), *pad(target.encode_lines(lines))))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, words).backward()
        optimizer.step()


INT8_ERROR = 0.07
"""Of log-probabilities, the root of the mean square, relative to that of the logits.

As in `tests/model/test_linear.py` √20 products that are each 1 % off, and a log-probability is a difference of two such
numbers: √40 %.
"""


def encoded(path, lines):
    return sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(lines, out_type=str)


def files(folder):
    return {path.name for path in folder.iterdir()}


KINDS = [("pre", "relu", "all"), ("post", "relu", "target"), ("pre", "swish", "none"), ("post", "gelu", "all")]


@pytest.mark.parametrize(("norm", "activation", "tied"), KINDS)
def test_log_probabilities_are_the_same(make, tmp_path, norm, activation, tied):
    loaded = make(norm, activation, tied)
    export_ctranslate2(loaded, tmp_path / "exported")
    theirs = ctranslate2.Translator(str(tmp_path / "exported"), compute_type="float32")
    targets = LINES[1:] + LINES[:1]
    source, target = (
        v.encode_lines(x) for v, x in ((loaded.source_vocabulary, LINES), (loaded.target_vocabulary, targets))
    )
    batch = Batch(*pad(source), *pad(target))
    with torch.no_grad():
        logits, words = loaded.model.eval()(batch)
    expected = logits.log_softmax(dim=1).gather(1, words[:, None]).squeeze(1).split(batch.target_lengths.tolist())
    names = [list(side.all_pieces) for side in (loaded.source_vocabulary, loaded.target_vocabulary)]
    given = [
        [[side[index] for index in ids[:-1]] for ids in rows]
        for side, rows in zip(names, (source, target), strict=True)
    ]
    for ours, result in zip(expected, theirs.score_batch(*given), strict=True):
        assert result.log_probs == pytest.approx(ours.tolist(), abs=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(("norm", "activation", "tied"), KINDS[:2])
def test_translations_and_scores_are_the_same(make, tmp_path, norm, activation, tied, beam):
    loaded = make(norm, activation, tied, taught=True)
    export_ctranslate2(loaded, tmp_path / "exported")
    sides = ("vocabulary.model",) * 2 if tied == "all" else ("source.model", "target.model")
    source, target = (tmp_path / "exported" / name for name in sides)
    theirs = ctranslate2.Translator(str(tmp_path / "exported"), compute_type="float32")
    translator = LineTranslator(
        loaded.model, loaded.source_vocabulary, loaded.target_vocabulary,
        DecodingOptions(beam_size=beam, max_length_factor=20.0), torch.device("cpu"),
    )  # fmt: skip
    decode = sentencepiece.SentencePieceProcessor(model_file=str(target)).decode
    chance = random.Random(5)
    lines = [" ".join(chance.choices(WORDS, k=chance.randint(1, 8))) for _ in range(24)]
    results = theirs.translate_batch(
        encoded(source, lines), beam_size=beam, length_penalty=0.6, return_scores=True,
        max_decoding_length=40, min_decoding_length=0,
    )  # fmt: skip
    ended = 0
    for ours, result in zip(translator.translate(lines), results, strict=True):
        if 0 < len(result.hypotheses[0]) < 40:
            ended += 1
            assert decode(result.hypotheses[0]) == ours.text
            assert result.scores[0] == pytest.approx(ours.score, abs=1e-4)  # in both, divided by length^0.6
    assert ended >= 12


def test_int8_is_a_quarter_of_the_size_and_near(make, tmp_path):
    loaded = make()
    export_ctranslate2(loaded, tmp_path / "whole", "float32")
    export_ctranslate2(loaded, tmp_path / "small", "int8")
    assert files(tmp_path / "small") == {"model.bin", "config.json", "shared_vocabulary.json", "vocabulary.model"}
    assert files(tmp_path / "small") == files(tmp_path / "whole")
    line = encoded(tmp_path / "whole" / "vocabulary.model", LINES)
    scored = [
        ctranslate2.Translator(str(tmp_path / name), compute_type=kind).score_batch(line, line)
        for name, kind in (("whole", "float32"), ("small", "int8"))
    ]
    assert (tmp_path / "small" / "model.bin").stat().st_size < (tmp_path / "whole" / "model.bin").stat().st_size
    whole, small = (torch.tensor([score for result in results for score in result.log_probs]) for results in scored)
    rows = loaded.source_vocabulary.encode_lines(LINES)
    with torch.inference_mode():
        logits, _ = loaded.model.eval()(Batch(*pad(rows), *pad(rows)))
    assert (small - whole).square().mean().sqrt() < INT8_ERROR * logits.square().mean().sqrt()


def test_an_exported_model_still_translates_the_same(make, tmp_path):
    loaded = make()
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    export_ctranslate2(loaded, tmp_path / "small", "int8")
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())


def test_a_recurrent_model_is_refused_with_the_reason(make, tmp_path):
    with pytest.raises(UserError, match=r"holds Transformers only, and this model is of type rnn"):
        export_ctranslate2(make(model="rnn"), tmp_path / "exported")
    with pytest.raises(UserError, match=r"have self-attention, and this model's has an SSRU"):
        export_ctranslate2(make(decoder_autoreg="ssru"), tmp_path / "exported")
    with pytest.raises(UserError, match=r"only where it normalises; this model does so nowhere"):
        export_ctranslate2(make(norm="none"), tmp_path / "exported")
    assert files(tmp_path) == {"model"}


def test_an_unknown_type_of_weights_is_refused(make, tmp_path):
    with pytest.raises(UserError, match="quantization 'int3' is not known"):
        export_ctranslate2(make(), tmp_path / "exported", "int3")
    assert files(tmp_path) == {"model"}


def test_pieces_are_in_the_order_of_their_indexes(vocabularies):
    names = vocabularies[0].all_pieces
    assert (names[END], names[UNKNOWN], len(names)) == ("</s>", "<unk>", 38)
    assert vocabularies[0].decode([5, 6]) == "".join(names[5:7]).replace("▁", " ").strip()
