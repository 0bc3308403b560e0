"""Several corpora in one declaration: what a prepared folder holds of them, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from phrases import phrases, write_lines, write_pairs

from nmt_async.errors import UserError
from nmt_async.text.corpora import read_corpora
from nmt_async.text.mixture import CorpusWeights
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare
from nmt_async.text.prepared import CORPORA, PreparedData
from nmt_async.text.vocabulary import train_vocabulary

FIRST, SECOND, VALID = phrases(200), phrases(60, seed=3), phrases(10, seed=2)


def declared(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two corpora written to ``folder``: `FIRST` in two files, one of them compressed, and `SECOND` with a tag."""
    sides: dict[str, list[str]] = {"source": [], "target": []}
    for name, pairs in (("a", FIRST[:150]), ("b", FIRST[150:])):
        for side, path in zip(sides, write_pairs(folder, name, pairs), strict=True):
            sides[side].append(str(path))
    compressed = folder / "b.en.gz"
    compressed.write_bytes(gzip.compress((folder / "b.en").read_bytes()))
    sides["source"][1] = str(compressed)
    source, target = map(str, write_pairs(folder, "c", SECOND))
    valid_source, valid_target = map(str, write_pairs(folder, "valid", VALID))
    second = {"name": "second", "source": source, "target": target, "tag": "__second__",
              "valid-source": valid_source, "valid-target": valid_target}  # fmt: skip
    return {"corpora": [{"name": "first", **sides}, {**second, **changes}]}


def written(folder: Path, values: Any) -> Path:
    """The declaration as a file."""
    path = folder / "corpora.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def options(folder: Path, values: Any = None, **changes: Any) -> PrepareOptions:
    """Options for these corpora."""
    path = written(folder, declared(folder) if values is None else values)
    return dataclasses.replace(PrepareOptions(out=folder / "data", corpora=path, vocab_size=80), **changes)


def source_text(data: PreparedData, index: int) -> str:
    return data.source_vocabulary.decode(data.train.source[index].tolist())


def test_the_folder_knows_of_which_corpus_each_pair_is(tmp_path: Path) -> None:
    data = prepare(options(tmp_path))
    assert data.corpora is not None
    assert data.corpora.names == ["first", "second"]
    assert [corpus.pairs for corpus in data.corpora.corpora] == [200, 60]
    assert data.corpora.count(np.array([0, 5, 199, 200, 259, 259])).tolist() == [3, 3]
    assert [source_text(data, index) for index in (0, 150, 199)] == [FIRST[index][0] for index in (0, 150, 199)]
    assert [source_text(data, index) for index in (200, 259)] == [f"__second__ {SECOND[n][0]}" for n in (0, 59)]
    lengths = data.train.target.lengths
    assert [corpus.target_tokens for corpus in data.corpora.corpora] == [lengths[:200].sum(), lengths[200:].sum()]
    assert data.corpora.summed(np.array([3, 250, 4]), lengths[[3, 250, 4]]).tolist() == [
        lengths[3] + lengths[4],
        lengths[250],
    ]
    assert [corpus.valid_pairs for corpus in data.corpora.corpora] == [0, 10]
    sources, references = data.valid_lines()
    assert (sources, references) == ([f"__second__ {source}" for source, _ in VALID], [target for _, target in VALID])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_tag_is_the_first_subword_of_each_line_of_its_corpus_and_of_no_other(kind: str, tmp_path: Path) -> None:
    data = prepare(options(tmp_path, vocab_type=kind))
    (tag,) = data.source_vocabulary.tag("__second__")
    first = [int(data.train.source[index][0]) == tag for index in range(260)]
    assert first == [False] * 200 + [True] * 60
    for index in range(200, 260):
        assert data.train.source[index].tolist().count(tag) == 1
        assert tag not in data.train.target[index]


def test_filters_ask_the_text_without_its_tag(tmp_path: Path) -> None:
    values = declared(tmp_path)
    write_lines(tmp_path / "c.en", ["", "\u200b", "the dog " * 30, *(source for source, _ in SECOND[3:])])
    data = prepare(options(tmp_path, values, max_length=50))
    removed = data.manifest["splits"]["train"]["removed"]
    assert {reason: count for reason, count in removed.items() if count} == {"empty": 2, "too_long": 1}
    assert data.corpora is not None
    assert [corpus.pairs for corpus in data.corpora.corpora] == [200, 57]
    assert source_text(data, 200) == f"__second__ {SECOND[3][0]}"


def test_duplicates_leave_the_corpus_in_which_they_come_later(tmp_path: Path) -> None:
    values = declared(tmp_path)
    write_pairs(tmp_path, "c", FIRST[:30] + SECOND[30:])
    data = prepare(options(tmp_path, values))
    assert data.corpora is not None
    assert [corpus.pairs for corpus in data.corpora.corpora] == [200, 60], "a tag makes a pair another one"
    values["corpora"][1].pop("tag")
    data = prepare(options(tmp_path, values, overwrite=True))
    assert data.corpora is not None
    assert [corpus.pairs for corpus in data.corpora.corpora] == [200, 30]
    assert source_text(data, 200) == SECOND[30][0]


def test_text_that_is_not_divided_has_the_fingerprint_that_it_always_had(tmp_path: Path) -> None:
    values = declared(tmp_path)
    values["corpora"][1].pop("tag")
    divided = prepare(options(tmp_path, values))
    plain = prepare(
        PrepareOptions(
            out=tmp_path / "plain", vocab_size=80, train_source=tuple(tmp_path / f"{name}.en" for name in "abc"),
            train_target=tuple(tmp_path / f"{name}.de" for name in "abc"),
            valid_source=(tmp_path / "valid.en",), valid_target=(tmp_path / "valid.de",),
        )
    )  # fmt: skip
    assert plain.corpora is None
    assert CORPORA not in plain.manifest["files"]
    names = [*plain.manifest["files"]]
    assert all(plain.manifest["files"][name] == divided.manifest["files"][name] for name in names)
    assert plain.fingerprint != divided.fingerprint
    (divided.folder / CORPORA).unlink()
    manifest = json.loads((divided.folder / "manifest.json").read_text())
    manifest["files"].pop(CORPORA)
    (divided.folder / "manifest.json").write_text(json.dumps(manifest))
    assert PreparedData.open(divided.folder).fingerprint == plain.fingerprint


def test_the_same_again_does_nothing_and_other_weights_or_tags_are_refused(tmp_path: Path) -> None:
    values = declared(tmp_path)
    first = prepare(options(tmp_path, values))
    shutil.move(tmp_path / "corpora.yaml", tmp_path / "moved.yaml")
    again = options(tmp_path, values)
    assert prepare(dataclasses.replace(again, corpora=tmp_path / "moved.yaml")).fingerprint == first.fingerprint
    for change in ({"tag": "__other__"}, {"name": "other"}, {"tag": None}):
        other = {"corpora": [values["corpora"][0], {**values["corpora"][1], **change}]}
        with pytest.raises(UserError, match=r"was prepared (with other names, tags or weights|from other files)"):
            prepare(options(tmp_path, other))
    with pytest.raises(UserError, match=r"with other names, tags or weights of corpora; .*train --corpus-weights"):
        prepare(options(tmp_path, {**values, "temperature": 5}))
    weighed = prepare(options(tmp_path, {**values, "temperature": 5}, overwrite=True))
    assert weighed.fingerprint != first.fingerprint, "its plan is another"


def test_weights_come_from_the_run_then_from_the_declaration_then_from_nobody(tmp_path: Path) -> None:
    values = declared(tmp_path)
    plain = prepare(options(tmp_path, values)).corpora
    weighed = prepare(options(tmp_path, {**values, "temperature": 2}, out=tmp_path / "weighed")).corpora
    values["corpora"][0]["weight"], values["corpora"][1]["weight"] = 3, 1
    three_to_one = prepare(options(tmp_path, values, out=tmp_path / "third")).corpora
    assert plain is not None
    assert weighed is not None
    assert three_to_one is not None
    fitting = np.arange(260)
    assert plain.mixture(fitting) is None
    assert three_to_one.mixture(fitting).quotas == (195, 65)  # type: ignore[union-attr]
    share = float(weighed.mixture(fitting).quotas[1]) / 260  # type: ignore[union-attr]
    assert share == pytest.approx(60**0.5 / (60**0.5 + 200**0.5))
    for corpora in (plain, weighed, three_to_one):
        assert corpora.mixture(fitting, CorpusWeights.parse("first=1,second=1")).quotas == (130, 130)  # type: ignore[union-attr]
        assert corpora.mixture(fitting, None, 1.0).quotas == (200, 60)  # type: ignore[union-attr]
    assert three_to_one.mixture(np.arange(150, 250)).sizes == (50, 50)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="no training pair of second is short enough; raise --max-length, or give"):
        three_to_one.mixture(np.arange(200))
    for temperature in (None, 1.0, 5.0):  # the declared one, and those of a run
        with pytest.raises(UserError, match="no training pair of second is short enough; raise --max-length, or give"):
            weighed.mixture(np.arange(200), None, temperature)


def change_second(**changes: Any) -> Any:
    return lambda values: values["corpora"][1].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_second(name="first"), "two corpora are called first; give one another name"),
        (change_second(name="a b"), "corpus 2: name 'a b' is not of letters"),
        (change_second(name=None), "corpus 2: name None is not of letters"),
        (change_second(weigth=1), "corpus 2: no key is called 'weigth'; there are name, source, target"),
        (change_second(weight=-1), "second: -1 is no weight"),
        (change_second(weight=float("nan")), "second: nan is no weight"),
        (change_second(weight="much"), "second: weight: 'much' is not a number"),
        (change_second(weight=1), "first has no weight; give each corpus one, or none of them"),
        (change_second(tag="two words"), "second: tag 'two words' is not a word without spaces"),
        (change_second(tag=""), "second: tag '' is not a word"),
        (change_second(source=[]), "second: source names 0 files and target 1"),
        (change_second(source=[], target=[]), "second: source and target are missing"),
        (change_second(source=5), "second: source must be the path of a file, or a list of them"),
        (change_second(source="/absent.en"), "--corpora, second, source: there is no file /absent.en"),
        (change_second(**{"valid-source": None}), "second: valid-source names 0 files and valid-target 1"),
        (lambda values: values.update(temperature=0), "0 is no temperature"),
        (lambda values: values.update(temperature="hot"), "temperature: 'hot' is not a number"),
        (lambda values: values.update(corpus=[]), "no key is called 'corpus'; there are corpora, temperature"),
        (lambda values: values.update(corpora=[]), "'corpora:' must be a list"),
        (lambda values: values.update(corpora=["text"]), "corpus 1 must be a mapping"),
        (lambda values: [corpus.update(weight=0) for corpus in values["corpora"]], "the weights sum to nothing"),
        (
            lambda values: [values.update(temperature=2), *(corpus.update(weight=1) for corpus in values["corpora"])],
            "the temperature makes weights of sizes; leave it out, or the weights",
        ),
    ],
)
def test_a_declaration_that_cannot_be_is_one_sentence_and_leaves_nothing(
    change: Any, message: str, tmp_path: Path
) -> None:
    values = declared(tmp_path)
    change(values)
    with pytest.raises(UserError, match=message) as refused:
        prepare(options(tmp_path, values))
    assert str(refused.value).count("\n") == 0
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def lines(name: str, content: list[str]) -> Any:
    return lambda folder: write_lines(folder / name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: [write_lines(folder / f"c.{side}", []) for side in ("en", "de")], "second has no lines"),
        (lines("c.de", ["zu kurz"]), r"c\.en has 60 lines but .*c\.de has 1;"),
        (lines("c.en", [""] * 60), "the filters removed all 60 pairs of second"),
        (lines("c.en", ["the red " * 400] * 60), "the filters removed all 60 pairs of second"),
        (lines("c.en", ["\u200b"] * 60), "the filters removed all 60 pairs of second"),
    ],
)
def test_a_corpus_of_nothing_is_named_and_leaves_nothing(change: Any, message: str, tmp_path: Path) -> None:
    chosen = options(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(chosen)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_tag_that_the_vocabulary_has_not_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    words = [line for pair in FIRST for line in pair]
    model = train_vocabulary(words, 90, "unigram", tmp_path / "without.model").path
    with pytest.raises(UserError, match=r"the tag of second: '__second__' is no subword of .*learnt with it"):
        prepare(options(tmp_path, vocab=model, vocab_size=90))
    assert not any(path.is_dir() for path in tmp_path.iterdir())
    model = train_vocabulary(words, 90, "unigram", tmp_path / "with.model", tags=["__second__"]).path
    assert prepare(options(tmp_path, vocab=model, vocab_size=90)).source_vocabulary.tag("__second__") == [2]


def test_a_folder_whose_corpora_do_not_fit_it_is_refused(tmp_path: Path) -> None:
    folder = prepare(options(tmp_path)).folder
    whole = json.loads((folder / CORPORA).read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    first, second = whole["corpora"]
    for damaged in (
        [],
        {},
        {"corpora": []},
        {**whole, "corpora": [first]},
        {**whole, "corpora": [first, {**second, "name": "first"}]},
        {**whole, "corpora": [{**first, "pairs": -1}, {**second, "pairs": 261}]},
        {**whole, "corpora": [{**first, "weight": 1.0}, second]},
        {**whole, "temperature": -1.0},
        {**whole, "more": 1},
    ):
        (folder / CORPORA).write_text(json.dumps(damaged))
        manifest["files"][CORPORA]["bytes"] = (folder / CORPORA).stat().st_size
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=r"corpora\.json is damaged .*; run prepare again"):
            PreparedData.open(folder)


DATA = os.environ.get("NMT_ASYNC_DATA")


@pytest.mark.skipif(not DATA, reason="NMT_ASYNC_DATA does not name the folder of real corpora")
def test_three_real_domains_with_tags_and_a_temperature(tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "en-id"
    corpora = [
        {"name": name, "tag": f"__{name}__", "source": str(folder / f"{name}.train-small.en.gz"),
         "target": str(folder / f"{name}.train-small.id.gz")}
        for name in ("general", "news", "religious")
    ]  # fmt: skip
    path = written(tmp_path, {"temperature": 5, "corpora": corpora})
    assert [corpus.tag for corpus in read_corpora(path).corpora] == ["__general__", "__news__", "__religious__"]
    data = prepare(PrepareOptions(out=tmp_path / "data", corpora=path, vocab_size=2000))
    assert data.corpora is not None
    sizes = [corpus.pairs for corpus in data.corpora.corpora]
    assert all(most * 0.95 < size <= most for size, most in zip(sizes, (2000, 1953, 5000), strict=True))
    mixture = data.corpora.mixture(np.arange(sum(sizes)))
    assert mixture is not None
    drawn = np.array(mixture.drawn(10)) - np.array(mixture.drawn(9))
    assert abs(drawn.sum() - sum(sizes)) <= 3
    assert drawn[2] / drawn[1] == pytest.approx((sizes[2] / sizes[1]) ** 0.2, rel=0.01)
