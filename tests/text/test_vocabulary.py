from __future__ import annotations

import collections
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from phrases import phrases
from sentencepiece import sentencepiece_model_pb2

from nmt_async.errors import RunFailure, UserError
from nmt_async.text.vocabulary import Vocabulary, sample_rows, train_vocabulary

LINES = [line for pair in phrases(400) for line in pair]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train_vocabulary(LINES, 90, "unigram", tmp_path_factory.mktemp("vocabulary") / "v.model")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_vocabulary_has_the_size_asked_for_and_marians_indexes(tmp_path: Path, kind: str) -> None:
    vocabulary = train_vocabulary(LINES, 100, kind, tmp_path / "v.model")
    assert vocabulary.size == 100
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model"))
    assert [model.id_to_piece(index) for index in (0, 1)] == ["</s>", "<unk>"]
    assert (model.bos_id(), model.pad_id()) == (-1, -1)


def test_vocabularies_are_the_same_where_indexes_mean_the_same(tmp_path: Path, vocabulary: Vocabulary) -> None:
    model = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.path.read_bytes())
    others = {}
    for name in ("splits otherwise", "more", "another", "order"):
        changed = type(model).FromString(model.SerializeToString())
        match name:
            case "splits otherwise":
                changed.pieces[20].score -= 9
            case "more":
                changed.pieces.add(piece="more", score=0.0)
            case "another":
                changed.pieces[20].piece = "another"
            case "order":
                changed.pieces[20].piece, changed.pieces[21].piece = model.pieces[21].piece, model.pieces[20].piece
        (tmp_path / name).write_bytes(changed.SerializeToString())
        others[name] = Vocabulary(tmp_path / name).is_same_as(vocabulary)
    assert others == {"splits otherwise": True, "more": False, "another": False, "order": False}


def test_the_same_lines_give_the_same_file(tmp_path: Path, vocabulary: Vocabulary) -> None:
    again = train_vocabulary(LINES, 90, "unigram", tmp_path / "v.model")
    assert again.path.read_bytes() == vocabulary.path.read_bytes()


def test_encoding_ends_with_the_end_mark_and_decoding_stops_there(vocabulary: Vocabulary) -> None:
    line = "the red train follows the old dog 17"
    ids = vocabulary.encode(line)
    assert ids[-1] == 0
    assert 0 not in ids[:-1]
    assert vocabulary.decode(ids) == vocabulary.decode(ids[:-1]) == vocabulary.decode([*ids, *ids]) == line


def test_threads_do_not_change_the_encoding(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode_lines(LINES, threads=3) == [vocabulary.encode(line) for line in LINES]
    assert vocabulary.encode_lines([]) == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_sentence(vocabulary: Vocabulary, line: str) -> None:
    ids = vocabulary.encode(line)
    assert ids.index(0) == len(ids) - 1
    assert all(0 <= index < vocabulary.size for index in ids)
    vocabulary.decode(ids)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_size_above_what_the_text_allows_names_the_largest_possible(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 50,000 .* largest possible is ([\d,]+)") as refused:
        train_vocabulary(LINES, 50_000, kind, tmp_path / "v.model")
    assert list(tmp_path.iterdir()) == []
    largest = int(str(refused.value).split()[-1].rstrip(".").replace(",", ""))
    assert train_vocabulary(LINES, largest, kind, tmp_path / "v.model").size == largest


def test_a_size_below_the_number_of_characters_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 10 is too small: .* need \d+"):
        train_vocabulary(LINES, 10, "unigram", tmp_path / "v.model")


def test_no_usable_line_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no line of the text"):
        train_vocabulary(["", "x" * 5000], 10, "unigram", tmp_path / "v.model")


def test_an_error_in_the_lines_is_the_callers(tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        yield "one"
        raise UserError("from the lines")

    with pytest.raises(UserError, match="from the lines"):
        train_vocabulary(lines(), 10, "unigram", tmp_path / "v.model")


def children_of(process: str = "self") -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


def test_a_learner_killed_for_memory_is_a_failure_that_says_so(tmp_path: Path) -> None:
    before = children_of()

    def lines() -> Iterator[str]:
        yield from LINES
        (learner,) = set(children_of()) - set(before)
        os.kill(learner, signal.SIGKILL)

    with pytest.raises(RunFailure, match="ended by signal 9, most likely for lack of memory"):
        train_vocabulary(lines(), 90, "unigram", tmp_path / "v.model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_learner_does_not_outlive_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    script = """
import sys, time
from pathlib import Path
from nmt_async.text.vocabulary import train_vocabulary
def lines():
    for number in range(10_000):
        yield str(number)
    print("fed", flush=True)
    time.sleep(60)
train_vocabulary(lines(), 90, "unigram", Path(sys.argv[1]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "v.model")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (learner,) = children_of(str(parent.pid))
        parent.send_signal(end)
        parent.wait(timeout=30)
    limit = time.monotonic() + 30
    while is_alive(learner):
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_training_says_nothing_on_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_vocabulary([*LINES, "x" * 5000], 100, "bpe", tmp_path / "v.model")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    for content in (b"", b"no model"):
        (tmp_path / "v.model").write_bytes(content)
        with pytest.raises(UserError, match=r"v\.model is not a SentencePiece model"):
            Vocabulary(tmp_path / "v.model")
    with pytest.raises(UserError, match="absent cannot be read"):
        Vocabulary(tmp_path / "absent")


def test_a_model_without_marians_indexes_is_refused(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=100, minloglevel=3
    )
    (tmp_path / "v.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match=r"has </s> = 2, <unk> = 0, <s> = 1; it needs </s> = 0, <unk> = 1"):
        Vocabulary(tmp_path / "v.model")


def selected(total: int, wanted: int, seed: int) -> list[int]:
    """Knuth's algorithm S, line by line."""
    chance, rows = random.Random(seed), []
    for row in range(total):
        if (total - row) * chance.random() < wanted - len(rows):
            rows.append(row)
    return rows


@given(total=st.integers(0, 50) | st.just(200_000), wanted=st.integers(0, 60), seed=st.integers(0, 5) | st.just(2**70))
def test_a_sample_is_of_the_size_asked_for_and_the_one_that_is_drawn_line_by_line(
    total: int, wanted: int, seed: int
) -> None:
    rows = sample_rows(total, wanted, seed)
    assert (rows is None) == (not 0 < wanted < total)
    if rows is not None:
        assert len(rows) == wanted
        assert rows.tolist() == selected(total, wanted, seed)


def test_a_sample_favours_no_line() -> None:
    drawn = collections.Counter(row for seed in range(2000) for row in np.asarray(sample_rows(10, 3, seed)).tolist())
    assert all(500 < drawn[row] < 700 for row in range(10))
