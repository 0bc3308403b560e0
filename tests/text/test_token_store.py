from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.text.token_store import StoreWriter, TokenStore, store_files


@given(
    vocabulary=st.sampled_from([8_000, 65_535, 65_536, 200_000]),
    fractions=st.lists(st.lists(st.floats(0, 1, exclude_max=True), max_size=9), max_size=9),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, vocabulary: int, fractions: list[list[float]]
) -> None:
    sentences = [[int(fraction * vocabulary) for fraction in sentence] + [0] for sentence in fractions]
    path = tmp_path_factory.mktemp("store") / "train.source"
    with StoreWriter(path, vocabulary) as writer:
        first = sentences[:3]
        writer.extend(
            np.array([index for sentence in first for index in sentence], np.int64),
            np.array([len(sentence) for sentence in first], np.int64),
        )
        for sentence in sentences[3:]:
            writer.append(sentence)
    store = TokenStore(path)
    assert [store[index].tolist() for index in range(len(store))] == sentences
    assert store.lengths.tolist() == [len(sentence) for sentence in sentences]
    assert store.lengths.dtype == np.int32
    assert store.tokens == writer.tokens == sum(map(len, sentences))


def test_a_vocabulary_of_sixteen_bits_takes_two_bytes_a_token(tmp_path: Path) -> None:
    for size, width in ((65_535, 2), (65_536, 4)):
        with StoreWriter(tmp_path / str(size), size) as writer:
            writer.append([5, 6, 0])
        assert store_files(tmp_path / str(size))[0].stat().st_size == 3 * width


def test_a_store_that_failed_half_way_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with StoreWriter(tmp_path / "train.source", 100) as writer:
            writer.append([5, 0])
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_sentences_are_read_only_and_indexes_bounded(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", 100) as writer:
        writer.append([5, 0])
    store = TokenStore(tmp_path / "s")
    with pytest.raises(ValueError, match="read-only"):
        store[0][0] = 3
    with pytest.raises(IndexError):
        store[1]


def test_files_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", 100) as writer:
        writer.append([5, 6, 0])
        writer.append([7, 0])
    tokens, offsets = store_files(tmp_path / "s")
    tokens.write_bytes(tokens.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"s\.tokens and s\.offsets do not fit"):
        TokenStore(tmp_path / "s")
    offsets.unlink()
    with pytest.raises(UserError, match=r"s\.offsets cannot be read"):
        TokenStore(tmp_path / "s")


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9), chosen=st.lists(st.integers(0, 8), max_size=12)
)  # fmt: skip
def test_many_sentences_at_once_are_those_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chosen: list[int]
) -> None:
    path = tmp_path_factory.mktemp("store") / "train.source"
    with StoreWriter(path, 70_000) as writer:
        for number, length in enumerate(lengths):
            writer.append([*range(number + 1, number + length), 0])
    store = TokenStore(path)
    rows = [index % len(lengths) for index in chosen]
    matrix, found = store.padded(np.array(rows, np.uint32))
    assert found.tolist() == [lengths[row] for row in rows]
    assert matrix.shape == (len(rows), max(found, default=0))
    for row, line in zip(rows, matrix, strict=True):
        assert line[: lengths[row]].tolist() == store[row].tolist()
        assert not line[lengths[row] :].any()
    for beyond in (-1, len(lengths)):
        with pytest.raises(IndexError):
            store.padded(np.array([0, beyond]))
