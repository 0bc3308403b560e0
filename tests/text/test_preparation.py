from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phrases import phrases, write_lines, write_pairs

from nmt_async.errors import UserError
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare
from nmt_async.text.prepared import PreparedData
from nmt_async.text.vocabulary import train_vocabulary

PAIRS = phrases(300)


def options(folder: Path, **changes: Any) -> PrepareOptions:
    """Options for a small corpus written to ``folder``, with these changes."""
    source, target = write_pairs(folder, "train", PAIRS)
    valid_source, valid_target = write_pairs(folder, "valid", phrases(20, seed=2))
    given = PrepareOptions(
        out=folder / "data", train_source=(source,), train_target=(target,), valid_source=(valid_source,),
        valid_target=(valid_target,), vocab_size=100,
    )  # fmt: skip
    return dataclasses.replace(given, **changes)


def from_tsv(folder: Path, lines: list[str], **changes: Any) -> PrepareOptions:
    """Options for a training text of these tab-separated lines alone."""
    path = write_lines(folder / "train.tsv", lines)
    return options(folder, train_source=(), train_target=(), train_tsv=(path,), **changes)


def removed(data: PreparedData) -> dict[str, int]:
    """How many pairs each filter removed, those that removed none left out."""
    return {reason: count for reason, count in data.manifest["splits"]["train"]["removed"].items() if count}


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"train.en", "train.de", "valid.en", "valid.de", "train.tsv"}


def test_the_folder_holds_the_text_as_tokens(tmp_path: Path) -> None:
    data = prepare(options(tmp_path))
    assert data.joint
    assert data.source_vocabulary is data.target_vocabulary
    assert len(data.train) == 300
    for index in (0, 299):
        assert data.source_vocabulary.decode(data.train.source[index].tolist()) == PAIRS[index][0]
        assert data.target_vocabulary.decode(data.train.target[index].tolist()) == PAIRS[index][1]
    assert data.valid is not None
    assert len(data.valid) == 20
    assert data.valid_lines() == tuple(map(list, zip(*phrases(20, seed=2), strict=True)))
    counts = data.manifest["splits"]["train"]
    assert (counts["read"], counts["kept"]) == (300, 300)
    assert counts["target"] == {"tokens": int(data.train.target.lengths.sum()), "unknown": 0}
    assert left_in(tmp_path) == {"data"}
    assert set(data.manifest["files"]) | {"manifest.json"} == {path.name for path in data.folder.iterdir()}


def test_a_batch_is_the_pairs_asked_for(tmp_path: Path) -> None:
    data = prepare(options(tmp_path))
    batch = data.train.batch(np.array([7, 3]))
    for row, index in enumerate([7, 3]):
        length = int(batch.source_lengths[row])
        assert batch.source[row, :length].tolist() == data.train.source[index].tolist()
        assert int(batch.target_lengths[row]) == data.train.target.lengths[index]


def test_separate_vocabularies(tmp_path: Path) -> None:
    data = prepare(options(tmp_path, separate_vocabs=True, vocab_size=70, vocab_type="bpe"))
    assert not data.joint
    assert data.source_vocabulary.decode(data.train.source[5].tolist()) == PAIRS[5][0]
    assert data.target_vocabulary.decode(data.train.target[5].tolist()) == PAIRS[5][1]
    assert (data.folder / "source.model").read_bytes() != (data.folder / "target.model").read_bytes()


def test_existing_vocabularies_are_used_and_their_change_noticed(tmp_path: Path) -> None:
    lines = [line for pair in PAIRS for line in pair]
    model = train_vocabulary(lines, 90, "bpe", tmp_path / "mine").path
    chosen = options(tmp_path, vocab=model, vocab_size=90)
    data = prepare(chosen)
    assert (data.folder / "vocabulary.model").read_bytes() == model.read_bytes()
    assert prepare(chosen).fingerprint == data.fingerprint
    train_vocabulary(lines, 90, "unigram", model)
    with pytest.raises(UserError, match="another --vocab than"):
        prepare(chosen)
    with pytest.raises(UserError, match=r"--vocab-size 99 does not fit: .*mine has 90 subwords"):
        prepare(dataclasses.replace(chosen, vocab_size=99))


def test_one_existing_vocabulary_leaves_the_other_to_be_learnt(tmp_path: Path) -> None:
    model = train_vocabulary([source for source, _ in PAIRS], 70, "unigram", tmp_path / "mine").path
    data = prepare(options(tmp_path, source_vocab=model, vocab_size=70))
    assert (data.folder / "source.model").read_bytes() == model.read_bytes()
    assert data.target_vocabulary.decode(data.train.target[5].tolist()) == PAIRS[5][1]


def test_the_filters_count_what_they_remove(tmp_path: Path) -> None:
    lines = [f"{source}\t{target}" for source, target in PAIRS]
    lines += [lines[4], lines[5], "\tleer", "bell\x07\tKlingel", "\u200b\tnichts", "red " * 60 + "\trote",
              "red " * 30 + "\trote"]  # fmt: skip
    chosen = from_tsv(tmp_path, lines, max_length=50)
    (tmp_path / "train.tsv").write_bytes((tmp_path / "train.tsv").read_bytes() + b"caf\xe9\tKaffee\n")
    data = prepare(chosen)
    assert removed(data) == {
        "invalid_utf8": 1, "control_characters": 1, "empty": 2, "duplicate": 2, "too_long": 1, "length_ratio": 1,
    }  # fmt: skip
    assert len(data.train) == 300
    assert data.source_vocabulary.decode(data.train.source[299].tolist()) == PAIRS[299][0]


def test_every_filter_can_be_switched_off(tmp_path: Path) -> None:
    lines = [f"{source}\t{target}" for source, target in PAIRS]
    lines += [lines[4], "\tleer", "bell\x07\tKlingel", "\u200b\tnichts", "red " * 300 + "\trote"]
    data = prepare(
        from_tsv(
            tmp_path, lines, max_length=0, max_length_ratio=0, keep_duplicates=True, keep_empty=True,
            keep_invalid_utf8=True, keep_control_characters=True,
        )
    )  # fmt: skip
    assert removed(data) == {}
    assert len(data.train) == len(lines)


def test_the_same_again_does_nothing_and_anything_else_is_refused(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    first = prepare(chosen)
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert prepare(dataclasses.replace(chosen, threads=1)).fingerprint == first.fingerprint
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written
    with pytest.raises(UserError, match=r"was prepared with --vocab-size 100, not 90; .*--overwrite"):
        prepare(dataclasses.replace(chosen, vocab_size=90))
    (tmp_path / "train.en").write_text((tmp_path / "train.en").read_text().replace("dog", "cow"))
    with pytest.raises(UserError, match=r"from another --train-source than .*train\.en; .*--overwrite"):
        prepare(chosen)
    second = prepare(dataclasses.replace(chosen, overwrite=True))
    assert second.fingerprint != first.fingerprint
    assert left_in(tmp_path) == {"data"}


def test_the_fingerprint_does_not_depend_on_place_threads_or_validation_spelling(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    first = prepare(dataclasses.replace(chosen, threads=1))
    second = prepare(dataclasses.replace(chosen, threads=3, out=tmp_path / "elsewhere"))
    assert first.fingerprint == second.fingerprint == first.manifest["fingerprint"]
    third = prepare(dataclasses.replace(chosen, keep_duplicates=True, out=tmp_path / "third"))
    assert third.fingerprint == first.fingerprint
    fourth = prepare(dataclasses.replace(chosen, vocab_size=99, out=tmp_path / "fourth"))
    assert fourth.fingerprint != first.fingerprint


def test_the_vocabulary_sample_is_drawn_by_the_seed(tmp_path: Path) -> None:
    chosen = options(tmp_path, vocab_sample=150, vocab_size=80)
    data = [prepare(dataclasses.replace(chosen, seed=seed, out=tmp_path / f"{seed}")) for seed in (1, 2)]
    assert data[0].fingerprint != data[1].fingerprint


def test_a_folder_that_prepare_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    chosen = options(tmp_path, overwrite=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").touch()
    for overwrite in (True, False):
        with pytest.raises(UserError, match=r"data is not a folder that nmt-async prepare made"):
            prepare(dataclasses.replace(chosen, overwrite=overwrite))
    assert (tmp_path / "data" / "thesis.tex").exists()


def test_an_empty_folder_can_be_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert len(prepare(options(tmp_path)).train) == 300


@pytest.mark.parametrize("place", ["train.en", "train.en/data", "/proc/data"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(UserError, match=rf"--out: .*{place}"):
        prepare(options(tmp_path, out=tmp_path / place))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": None}, "--out is missing"),
        ({"train_source": (), "train_target": ()}, "no training text"),
        ({"vocab_size": 0}, "--vocab-size 0: it must be 3 or more"),
        ({"vocab_size": 10**13}, "--vocab-size 10,000,000,000,000: it must be"),
        ({"vocab_sample": -1}, "--vocab-sample -1"),
        ({"max_length": -1}, "--max-length -1"),
        ({"max_length_ratio": 0.5}, "--max-length-ratio 0.5"),
        ({"max_length_ratio": float("nan")}, "--max-length-ratio nan"),
        ({"character_coverage": 1.5}, "--character-coverage 1.5"),
        ({"threads": -1}, "--threads -1"),
        ({"vocab": Path("v"), "separate_vocabs": True}, "--vocab is one vocabulary for both"),
        ({"vocab": Path("/absent")}, "--vocab: there is no file /absent"),
        ({"train_source": (Path("-"),), "train_target": (Path("-"),)}, "standard input is asked for 2 times"),
        ({"train_source": (Path("/absent"),)}, "--train-source: there is no file /absent"),
        ({"valid_source": ()}, "--valid-source is given not at all but --valid-target once"),
        ({"vocab_size": 20_000}, r"--vocab-size 20,000 is more than this text allows; the largest possible is \d"),
        ({"max_length": 1}, r"the filters removed all 300 training pairs \(300 too_long\)"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(options(tmp_path, **changes))
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "the training text is empty"), (["\t", "\tx"], r"removed all 2 training pairs \(2 empty\)")],
)
def test_a_corpus_of_nothing_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(from_tsv(tmp_path, lines))
    assert left_in(tmp_path) == set()


def test_unequal_line_counts_leave_nothing(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    write_lines(tmp_path / "train.de", ["zu kurz"])
    with pytest.raises(UserError, match=r"train\.en has 300 lines but .*train\.de has 1;"):
        prepare(chosen)
    assert left_in(tmp_path) == set()


def test_validation_text_is_kept_whole_but_must_be_utf8(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    odd = ["", "bell\x07", "the " * 400, "the red dog", "the red dog", "line\u2028separator"]
    write_lines(tmp_path / "valid.en", odd)
    write_lines(tmp_path / "valid.de", ["der Hund"] * 6)
    data = prepare(chosen)
    assert data.valid_lines() == (odd, ["der Hund"] * 6)
    assert data.valid is not None
    assert len(data.valid) == 6
    (tmp_path / "valid.de").write_bytes(b"a\nb\ncaf\xe9\nd\ne\nf\n")
    with pytest.raises(UserError, match=r"line 3 of .*valid\.en and .*valid\.de is not UTF-8"):
        prepare(dataclasses.replace(chosen, overwrite=True))
    assert PreparedData.open(tmp_path / "data").fingerprint == data.fingerprint


def test_without_validation_text_there_is_none(tmp_path: Path) -> None:
    data = prepare(options(tmp_path, valid_source=(), valid_target=()))
    assert data.valid is None
    assert data.valid_lines() == ([], [])


def test_a_folder_that_is_not_whole_is_named(tmp_path: Path) -> None:
    folder = prepare(options(tmp_path)).folder
    with pytest.raises(UserError, match=r"there is no folder .*absent"):
        PreparedData.open(tmp_path / "absent")
    with pytest.raises(UserError, match="is not a folder that nmt-async prepare made"):
        PreparedData.open(tmp_path)
    tokens = folder / "train.target.tokens"
    tokens.write_bytes(tokens.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"train\.target\.tokens has [\d,]+ bytes where manifest\.json says"):
        PreparedData.open(folder)
    tokens.unlink()
    with pytest.raises(UserError, match=r"is incomplete: train\.target\.tokens is missing"):
        PreparedData.open(folder)
    manifest = folder / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**whole, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        PreparedData.open(folder)
    for damaged in ("", "{", "[]", "{}", json.dumps({**whole, "files": ["x"]}), json.dumps({**whole, "files": 3})):
        manifest.write_text(damaged)
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            PreparedData.open(folder)
