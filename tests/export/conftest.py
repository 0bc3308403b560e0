from __future__ import annotations

import pytest
from exported import SIZES, SMALL, build

from nmt_async.text import generated
from nmt_async.text.vocabulary import train_vocabulary


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder with generated train.en, train.de, valid.en and valid.de."""
    folder = tmp_path_factory.mktemp("text")
    generated.write(folder, {"train": 300, "valid": 24}, seed=1)
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
