from __future__ import annotations

import pytest
from exported import SIZES, SMALL, build
from opus import imported, learnt, train, with_token

from nmt_async.demo_corpus import generate
from nmt_async.text.vocabulary import train_vocabulary


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder with generated train.en, train.de, valid.en and valid.de."""
    folder = tmp_path_factory.mktemp("text")
    generate.write(folder, {"train": 300, "valid": 24}, seed=1)
    return folder


@pytest.fixture(scope="session")
def pairs(text):
    """Forty short sentence pairs."""
    sides = [(text / f"train.{side}").read_text().splitlines() for side in ("en", "de")]
    return sorted(zip(*sides, strict=True), key=lambda pair: (len(pair[0]), pair))[:40]


@pytest.fixture(scope="session")
def lines(pairs):
    """Their sources in another order, two of them without words."""
    found = [source for source, _ in pairs[::2] + pairs[1::2]]
    found[3], found[7] = "", "  "
    return found


@pytest.fixture(scope="session")
def vocabularies(text, tmp_path_factory):
    """Paths of real SentencePiece models: joint, source, target; the last two of unequal sizes."""
    folder = tmp_path_factory.mktemp("vocabularies")
    english, german = ((text / f"train.{side}").read_text().splitlines() for side in ("en", "de"))
    made = {"joint": english + german, "source": english, "target": german}
    return {name: train_vocabulary(words, SIZES[name], "unigram", folder / f"{name}.spm").path
            for name, words in made.items()}  # fmt: skip


@pytest.fixture(scope="session")
def saved(vocabularies, tmp_path_factory):
    """Makes a model folder of the sizes given, its parameters as they were initialised."""

    def make(**sizes):
        return build(tmp_path_factory.mktemp("saved") / "model", vocabularies, **{**SMALL, **sizes})

    return make


@pytest.fixture(scope="session")
def trained(vocabularies, pairs, tmp_path_factory):
    """The same, trained for a moment on `pairs`."""

    def make(**sizes):
        return build(tmp_path_factory.mktemp("trained") / "model", vocabularies, pairs, **{**SMALL, **sizes})

    return make


@pytest.fixture(scope="session")
def sides(text):
    """All lines of both languages, those of the source with a token."""
    english, german = ((text / f"train.{side}").read_text().splitlines() for side in ("en", "de"))
    return with_token(english), german


@pytest.fixture(scope="session")
def models(sides, tmp_path_factory):
    """SentencePiece models of source and target, by the kind of the target's."""
    folder = tmp_path_factory.mktemp("models")
    english, german = [line.partition(" ")[2] for line in sides[0]], sides[1]
    source = learnt(english, 160, folder / "source")
    targets = {
        kind: learnt(german, 180 + 256 * (kind == "bytes"), folder / kind, **options)
        for kind, options in {
            "unigram": {}, "bpe": {"model_type": "bpe"}, "bytes": {"byte_fallback": True}
        }.items()
    }  # fmt: skip
    return {kind: (source, target) for kind, target in targets.items()}


@pytest.fixture(scope="session")
def trained_on_lists(sides, models, tmp_path_factory):
    """Trains a model as OPUS-MT's; its folder. ``lists`` are the names of its lists, ``kind`` the target's pieces."""

    def make(kind, lists, **options):
        pytest.importorskip("pymarian")
        folder = tmp_path_factory.mktemp("opus")
        train(folder, sides, models[kind], lists, **options)
        return folder

    return make


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def opus(request, trained_on_lists, models, tmp_path_factory):
    """(Marian's folder, SentencePiece models, the run it was imported as), of one list for both languages."""
    folder = trained_on_lists(request.param, ("vocab.yml", "vocab.yml"), **{"tied-embeddings-all": True})
    run = tmp_path_factory.mktemp("imported") / "run"
    imported(folder, models[request.param], run)
    return folder, models[request.param], run


@pytest.fixture
def raw(lines):
    """Lines to translate, some with letters that SentencePiece has not seen."""
    return with_token([*lines, "We gave Straße the lamp.", "Здравствуй, lamp", "~~ the ~ lamp"])
