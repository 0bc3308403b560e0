"""The files of a prepared folder: manifest, token stores, vocabulary, validation text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import answered, damaged, json_files, often

from nmt_async.errors import UserError
from nmt_async.reading import json_object
from nmt_async.text.corpora import PreparedCorpora
from nmt_async.text.prepared import CORPORA, MANIFEST, PreparedData
from nmt_async.text.token_store import StoreWriter, TokenStore, store_files

SENTENCES = [[5, 6, 0], [0], [7, 8, 9, 10, 11, 0], [65_534, 0], [3] * 40 + [0]]


@pytest.fixture(scope="session")
def data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder in which a test may overwrite the file that it puts back."""
    return Path(shutil.copytree(small_data, tmp_path_factory.mktemp("fuzzed") / "data"))


def written_store(folder: Path, size: int) -> Path:
    with StoreWriter(folder / "store", size) as writer:
        for sentence in SENTENCES:
            writer.append(sentence)
    return folder / "store"


@pytest.mark.parametrize("which", [0, 1])
@often
@given(data=st.data())
def test_a_token_store_is_read_or_refused(which: int, tmp_path: Path, data: st.DataObject) -> None:
    path = written_store(tmp_path, 65_535)
    file = store_files(path)[which]
    content = data.draw(damaged(file.read_bytes()))
    file.write_bytes(content)

    def read() -> None:
        store = TokenStore(path)
        lengths = store.lengths
        assert len(lengths) == len(store)
        assert all(len(store[number]) == length > 0 for number, length in enumerate(lengths))
        assert lengths.sum() == store.tokens
        assert store.tokens <= 4096

    answered(read)


@pytest.mark.parametrize(
    "offsets", [[0, 10**15], [0, 3, -1, 5], [0, 2**63 - 1, 5], [0, 5, 3, 5], [2, 5], [0, 5, 5], []]
)
def test_offsets_that_cannot_be_are_refused(offsets: list[int], tmp_path: Path) -> None:
    tokens, places = store_files(tmp_path / "store")
    np.zeros(5, "<u2").tofile(tokens)
    np.array(offsets, "<i8").tofile(places)

    def read() -> Any:
        store = TokenStore(tmp_path / "store")
        return store, store.lengths

    assert answered(read) is None


def opened(folder: Path) -> None:
    prepared = PreparedData.open(folder)
    assert len(prepared.fingerprint) == 64
    assert len(prepared.train.source.lengths) == len(prepared.train.target.lengths)
    prepared.valid_lines()
    prepared.train.batch([0, len(prepared.train) - 1])
    prepared.source_vocabulary.decode(prepared.source_vocabulary.encode("a dog"))


@often
@given(mutation=st.data())
def test_a_manifest_is_read_or_refused(data: Path, small_data: Path, mutation: st.DataObject) -> None:
    whole = (small_data / MANIFEST).read_bytes()
    (data / MANIFEST).write_bytes(mutation.draw(json_files(whole)))
    try:
        answered(lambda: opened(data))
    finally:
        (data / MANIFEST).write_bytes(whole)


@often
@given(mutation=st.data())
def test_what_is_said_of_corpora_is_read_or_refused(mixed_data: Path, mutation: st.DataObject) -> None:
    content = mutation.draw(json_files((mixed_data / CORPORA).read_bytes()))
    pairs = len(PreparedData.open(mixed_data).train)

    def read() -> None:
        try:
            corpora = PreparedCorpora.from_mapping(json_object(content.decode(errors="replace")), pairs)
        except (ValueError, TypeError) as error:  # of which a prepared folder makes a sentence
            raise UserError(f"{error}; run prepare again.") from None
        assert corpora.count(np.arange(pairs)).sum() == pairs
        corpora.mixture(np.arange(pairs))

    answered(read)


@often
@given(mutation=st.data())
def test_a_file_beside_the_manifest_is_read_or_refused(data: Path, small_data: Path, mutation: st.DataObject) -> None:
    name = mutation.draw(st.sampled_from(sorted(json.loads((small_data / MANIFEST).read_text())["files"])))
    whole = (small_data / name).read_bytes()
    content = mutation.draw(damaged(whole))
    # Of the same size, or there would be nothing to find out.
    (data / name).write_bytes((content + bytes(len(whole)))[: len(whole)] if mutation.draw(st.booleans()) else content)
    try:
        answered(lambda: opened(data))
    finally:
        (data / name).write_bytes(whole)
