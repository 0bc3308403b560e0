"""Models whose text SentencePiece splits before Marian looks its pieces up in a list, as OPUS-MT's, become runs."""

from __future__ import annotations

import json

import pytest
import sentencepiece
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from nmt_async.cli.main import run as run_command
from opus import GREEDY, TOKENS, TRAINED_ON, by_hand, imported, learnt, looked_up, split
from test_importing import marians_scores, our_scores

from nmt_async import Translator
from nmt_async.checkpoints.averaging import average_models
from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import UserError
from nmt_async.export import marian_configuration
from nmt_async.export.conversion import export, import_model
from nmt_async.export.marian_vocabularies import given_vocabularies, read_words, vocabulary_files
from nmt_async.export.options import ExportOptions, ImportOptions
from nmt_async.export.verification import NOTHING, Translated
from nmt_async.text.vocabulary import END, UNKNOWN, Vocabulary
from nmt_async.translate.translator import LineTranslator


def translated(loaded: LoadedModel, lines: list[str]):
    vocabularies = loaded.source_vocabulary, loaded.target_vocabulary
    return LineTranslator(loaded.model, *vocabularies, GREEDY, torch.device("cpu")).translate(lines)


def check_translations(loaded: LoadedModel, lines: list[str], theirs: list[Translated]) -> None:
    ended = 0
    for ours, their in zip(translated(loaded, lines), theirs, strict=True):
        if ours.text == their.text and their is not NOTHING:
            ended += 1
            assert ours.score == pytest.approx(their.score, abs=1e-4)
        assert ours.text.startswith(their.text)  # Marian's limit of length is lower
    assert ended > len(lines) / 3


def test_raw_text_is_translated_here_as_split_text_by_marian(opus, raw, tmp_path):
    folder, spm, run = opus
    check_translations(load_model(run), raw, by_hand(folder, spm, raw, tmp_path))


def test_scores_are_marians(opus, sides, tmp_path):
    folder, spm, run = opus
    pairs = list(zip(*sides, strict=True))[: 2 * TRAINED_ON : 6]
    theirs = [(" ".join(split(spm[0], source)), " ".join(split(spm[1], target))) for source, target in pairs]
    vocabs = (folder / "vocab.yml",) * 2
    assert our_scores(load_model(run), pairs) == pytest.approx(
        marians_scores(folder / "model.npz", vocabs, theirs, tmp_path), abs=1e-3
    )


def test_text_becomes_the_indexes_that_marian_looks_up(opus, raw, sides):
    folder, spm, run = opus
    loaded, words = load_model(run), read_words(folder / "vocab.yml")
    vocabularies = loaded.source_vocabulary, loaded.target_vocabulary
    unknown = 0
    for vocabulary, model, lines in zip(vocabularies, spm, ([*raw, *sides[0]], sides[1]), strict=True):
        assert vocabulary.size == len(words)
        for line in lines:
            assert vocabulary.encode(line) == looked_up(words, split(model, line))
            unknown += vocabulary.encode(line).count(UNKNOWN)
    assert unknown  # or no piece was tried that is in no list
    token = words.index(TOKENS[0])
    assert vocabularies[0].encode(f"{TOKENS[0]} a lamp")[0] == token
    assert vocabularies[0].decode([token]) == TOKENS[0]
    assert vocabularies[1].decode(vocabularies[1].encode(sides[1][0])) == sides[1][0]


@pytest.fixture(scope="session")
def with_bytes(models, tmp_path_factory):
    """(list, SentencePiece models, vocabularies) where unknown letters are split into bytes, a third of them listed."""
    folder = tmp_path_factory.mktemp("bytes")
    target = sentencepiece.SentencePieceProcessor(model_file=str(models["bytes"][1]))
    words = ["</s>", "<unk>", "ж", "<s>", *[target.id_to_piece(index) for index in range(3, target.vocab_size(), 3)]]
    (folder / "vocab.yml").write_text(yaml.safe_dump({word: index for index, word in enumerate(words)}))
    given = given_vocabularies([folder / "vocab.yml"] * 2, models["bytes"])
    files = vocabulary_files(given, [len(words) + 5] * 2, folder)
    return words, models["bytes"], [Vocabulary(file) for file in files]


@given(line=st.text(st.characters(codec="utf-8"), max_size=30) | st.text("abc ▁<>ß/sж", max_size=30))
def test_any_text_becomes_the_indexes_that_marian_looks_up(with_bytes, line):
    words, spm, vocabularies = with_bytes
    for model, vocabulary in zip(spm, vocabularies, strict=True):
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(model)).encode(line, out_type=str)
        inside = [piece for piece in pieces if piece != "</s>"]  # which ends Marian's sentence, and not ours
        assert vocabulary.encode(line) == looked_up(words, [piece if piece in inside else "" for piece in pieces])


def test_indexes_without_words_are_of_nothing(with_bytes):
    words, _, (source, target) = with_bytes
    assert source.size == target.size == len(words) + 5
    assert source.is_same_as(target)
    assert target.decode([2, len(words) + 1, 2]) == "жж"


def test_it_is_imported_by_the_command(opus, tmp_path, capsys):
    folder, spm, run = opus
    typed = ["import", folder / "model.npz", "--vocabs", *[folder / "vocab.yml"] * 2, "--spm", *spm, "--out"]
    assert run_command([*map(str, typed), str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "SHA256SUMS").read_bytes() == (run / "SHA256SUMS").read_bytes()


def test_the_configuration_of_an_old_model_of_opus_mt_is_known():
    written = {
        "bert-train-type-embeddings": True, "bert-type-vocab-size": 2, "dec-cell": "gru", "dec-cell-base-depth": 2,
        "dec-cell-high-depth": 1, "dec-depth": 6, "dim-emb": 512, "dim-rnn": 1024, "dim-vocabs": [58101, 58101],
        "enc-cell": "gru", "enc-cell-depth": 1, "enc-depth": 6, "enc-type": "bidirectional", "input-types": [],
        "layer-normalization": False, "right-left": False, "skip": False, "tied-embeddings": False,
        "tied-embeddings-all": True, "tied-embeddings-src": False, "transformer-aan-activation": "swish",
        "transformer-aan-depth": 2, "transformer-aan-nogate": False, "transformer-decoder-autoreg": "self-attention",
        "transformer-dim-aan": 2048, "transformer-dim-ffn": 2048, "transformer-ffn-activation": "swish",
        "transformer-ffn-depth": 2, "transformer-guided-alignment-layer": "last", "transformer-heads": 8,
        "transformer-no-projection": False, "transformer-postprocess": "dan", "transformer-postprocess-emb": "d",
        "transformer-preprocess": "", "transformer-tied-layers": [], "transformer-train-position-embeddings": False,
        "type": "transformer", "ulr": False, "ulr-dim-emb": 0, "ulr-trainable-transformation": False,
        "version": "v1.8.2 2019-12-01",
    }  # fmt: skip
    found = marian_configuration.read(written)
    assert (found.norm, found.activation, found.tied, found.target_vocabulary) == ("post", "swish", "all", 58101)


def test_two_lists_of_unequal_sizes(trained_on_lists, models, sides, tmp_path):
    lists = "source.yml", "target.yml"
    folder = trained_on_lists("unigram", lists, **{"tied-embeddings": True, "after-batches": 10})
    loaded = imported(folder, models["unigram"], tmp_path / "run", lists)
    assert loaded.source_vocabulary.size != loaded.target_vocabulary.size
    pairs = list(zip(*sides, strict=True))[::8]
    theirs = [[" ".join(split(model, line)) for model, line in zip(models["unigram"], pair, strict=True)]
              for pair in pairs]  # fmt: skip
    vocabs = tuple(folder / name for name in lists)
    assert our_scores(loaded, pairs) == pytest.approx(
        marians_scores(folder / "model.npz", vocabs, theirs, tmp_path), abs=1e-3
    )


def test_padded_embeddings_and_a_list_of_lines(trained_on_lists, models, raw, tmp_path):
    folder = trained_on_lists("unigram", ("vocab.yml",) * 2, **{"tied-embeddings-all": True, "dim-vocabs": 400})
    words = read_words(folder / "vocab.yml")
    (folder / "vocab.txt").write_text("".join(f"{word}\r\n" for word in words))
    loaded = imported(folder, models["unigram"], tmp_path / "run", ("vocab.txt",) * 2)
    assert loaded.target_vocabulary.size == 400 > len(words)
    check_translations(loaded, raw, by_hand(folder, models["unigram"], raw, tmp_path, "vocab.txt"))


def ends(loaded: LoadedModel, line: str) -> bool:
    """Whether its translation is shorter than any program's limit, and not empty."""
    [found] = translated(loaded, [line])
    return 0 < len(found.text) < len(line)


def test_it_is_exported_with_two_sentencepiece_models(opus, raw, tmp_path):
    folder, spm, run = opus
    words, loaded = read_words(folder / "vocab.yml"), load_model(run)
    short = [line for line in raw if ends(loaded, line)]
    (tmp_path / "all").write_text("".join(f"{line}\n" for line in short))
    by_index = sentencepiece.SentencePieceProcessor(model_file=str(run / "source.model")).encode
    listed = [line for line in short if all(UNKNOWN < index < len(words) for index in by_index(line))]
    (tmp_path / "listed").write_text("".join(f"{line}\n" for line in listed))
    formats = ("ctranslate2", "all", "model"), ("huggingface", "all", "spm"), ("marian", "listed", "spm")
    for format, lines, end in formats:
        options = ExportOptions(format=format, verify=tmp_path / lines)
        if format == "marian" and "bpe" in spm[1].name:
            with pytest.raises(UserError, match="splits text by way of pieces for which the model has no index"):
                export(options, run, tmp_path / format)
            continue
        found = export(options, run, tmp_path / format)
        assert found is not None
        assert found.share == 1.0, format
        assert {f"source.{end}", f"target.{end}"} <= {path.name for path in (tmp_path / format).iterdir()}
        if format == "huggingface":
            indexes = json.loads((tmp_path / format / "vocab.json").read_text())
            assert [indexes[word] for word in words] == list(range(len(words)))
        if format == "marian":
            assert found.score_difference < 1e-4
            vocabs = tmp_path / format / "source.spm", tmp_path / format / "target.spm"
            again = import_model(ImportOptions(vocabs=vocabs, out=tmp_path / "again"), tmp_path / format / "model.npz")
            assert again.configuration == loaded.configuration
            assert again.source_vocabulary.is_same_as(loaded.source_vocabulary)


def test_it_is_averaged_and_translates_with_others(opus, tmp_path):
    _, _, run = opus
    average_models([run, run], tmp_path / "average")
    lines = ["the small lamp", "a teacher"]
    alone, together = (Translator(models).translate(lines) for models in (run, [run, tmp_path / "average"]))
    assert [each.text for each in together] == [each.text for each in alone]


def test_a_run_goes_on_from_it(opus, text, tmp_path, capsys):
    _, _, run = opus
    data = ["--train-source", text / "train.en", "--train-target", text / "train.de", "--threads", 1]
    vocabs = ["--source-vocab", run / "source.model", "--target-vocab", run / "target.model"]
    assert run_command(["prepare", *map(str, [*data, *vocabs, "--out", tmp_path / "data"])]) == 0
    typed = ["train", tmp_path / "data", "--init-from", run, "--out", tmp_path / "run", "--stop-after", 2,
             "--cluster", "simulated", "--workers", 1, "--profile", "uneven", "--cpu-threads", 1]  # fmt: skip
    assert run_command(list(map(str, typed))) == 0, capsys.readouterr().err
    after = load_model(tmp_path / "run")
    assert after.configuration.tied == "all"
    assert after.source_vocabulary.path.read_bytes() == (run / "source.model").read_bytes()
    assert after.target_vocabulary.path.read_bytes() == (run / "target.model").read_bytes()


def test_sentencepiece_models_are_named_where_lists_are_and_there_alone(models, vocabularies, tmp_path):
    (tmp_path / "vocab.yml").write_text("</s>: 0\n<unk>: 1\na: 2\n")
    (tmp_path / "vocab.fsv").write_text("")
    (tmp_path / "no.spm").write_text("x")
    word = learnt(["a b c a b"] * 9, 6, tmp_path / "word", model_type="word")
    listed, joint, spm = tmp_path / "vocab.yml", vocabularies["joint"], models["unigram"]
    for vocabs, splitting, reason in (
        ((listed, listed), None, "is a list of words; name with --spm"),
        ((joint, listed), None, f"{listed} is a list of words; name with --spm"),
        ((joint, joint), spm, "--spm is for vocabularies that are lists of words"),
        ((joint, listed), spm, f"{joint} is a SentencePiece model itself; give it again in the place of {spm[0]}"),
        ((listed, tmp_path / "vocab.fsv"), spm, "has factors"),
        ((listed, listed), (tmp_path / "no.spm", spm[1]), "no.spm is not a SentencePiece model"),
        ((listed, listed), (tmp_path / "none.spm", spm[1]), "none.spm cannot be read"),
        ((listed, listed), (spm[0], word), "is neither a unigram model nor one of BPE"),
    ):
        with pytest.raises(UserError, match=reason):
            given_vocabularies(vocabs, splitting)
    mixed = given_vocabularies([listed, joint], [spm[0], joint])
    files = vocabulary_files(mixed, [3, mixed[1].size], tmp_path)
    assert Vocabulary(files[0]).encode("a ж")[-1] == END
    assert files[1] == joint


def test_a_list_that_is_not_the_models_is_refused(opus, tmp_path):
    folder, spm, _ = opus
    words = read_words(folder / "vocab.yml")
    (tmp_path / "model.npz").symlink_to(folder / "model.npz")
    (tmp_path / "vocab.txt").write_text("\n".join([*words, "one more"]))
    with pytest.raises(UserError, match=f"has {len(words) + 1} subwords and .* for {len(words)}"):
        imported(tmp_path, spm, tmp_path / "run", ("vocab.txt",) * 2)
    (tmp_path / "other.txt").write_text("\n".join([*words[:-1], "another"]))
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(UserError, match=r"are one matrix, and .* have different subwords"):
        imported(tmp_path, spm, tmp_path / "run", ("vocab.txt", "other.txt"))


def test_a_sentencepiece_model_of_another_language_is_refused(opus, tmp_path):
    folder, spm, _ = opus
    other = learnt(["девочка видит собаку", "собака видит мальчика", "мальчик читает"] * 20, 24, tmp_path / "other")
    with pytest.raises(UserError, match=r"^--spm: only \d+ of the \d+ subwords of .*other.* are in .*vocab\.yml"):
        imported(folder, (spm[0], other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_token_that_would_be_split_is_refused(text, tmp_path):
    lines = (text / "train.en").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("</s>\n<unk>\n>>zho_Hans<<\na")
    for name, options in (
        ("suffix", {"treat_whitespace_as_suffix": True}),
        ("bare", {"add_dummy_prefix": False}),
        ("folded", {"normalization_rule_name": "nmt_nfkc_cf"}),
    ):
        spm = learnt(lines, 160, tmp_path / name, **options)
        sides = given_vocabularies([tmp_path / "vocab.txt"] * 2, [spm] * 2)
        with pytest.raises(UserError, match=r"has the token '>>zho_Hans<<', and .* makes something else of it"):
            vocabulary_files(sides, [4, 4], tmp_path)
