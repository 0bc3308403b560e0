"""What comes next is read before it is needed, and everything in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nmt_async.text import read_ahead
from nmt_async.text.read_ahead import ReadAhead
from nmt_async.text.token_store import StoreWriter, TokenStore, store_files

PATIENCE = 20.0


class Noted:
    """Two files, and which rows were asked for; the first that are asked for come only when they may."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.may_come = threading.Event()
        self.rows: list[int] = []
        for name in ("one", "two"):
            (folder / name).write_bytes(bytes(100))

    def files(self) -> list[Path]:
        return [self.folder / "one", self.folder / "two"]

    def fetch(self, rows: NDArray[np.integer]) -> None:
        assert self.may_come.wait(PATIENCE)
        self.rows += rows.tolist()


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


def read_ahead_of(store: Noted, monkeypatch: pytest.MonkeyPatch, room: int) -> ReadAhead:
    monkeypatch.setattr(read_ahead, "left_on_machine", lambda: room)
    return ReadAhead(store)


def test_what_is_asked_for_is_read_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Noted(tmp_path)
    reader = read_ahead_of(store, monkeypatch, room=0)
    for rows in ([5, 3], [8], [1, 2]):
        reader.soon(np.array(rows))
    assert store.rows == []
    store.may_come.set()
    until(lambda: len(store.rows) == 5)
    reader.close()
    assert store.rows == [5, 3, 8, 1, 2]


@pytest.mark.parametrize(("room", "all_read"), [(400, True), (399, False)])
def test_all_is_read_where_there_is_room_for_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, all_read: bool
) -> None:
    store = Noted(tmp_path)
    store.may_come.set()
    reader = read_ahead_of(store, monkeypatch, room)
    if all_read:
        reader.wait()  # it ends by itself
    reader.soon(np.array([7]))
    if not all_read:
        until(lambda: store.rows == [7])
    reader.close()
    reader.close()
    assert store.rows == ([] if all_read else [7]), "what is in memory is not asked for"


def test_files_that_have_vanished_end_it_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Noted(tmp_path)
    (tmp_path / "two").unlink()
    reader = read_ahead_of(store, monkeypatch, room=10**9)
    reader.soon(np.array([1]))
    reader.close()


def test_sentences_of_a_store_are_brought_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "train.source"
    with StoreWriter(path, 100) as writer:
        for length in (3, 1, 4):
            writer.append([*range(1, length), 0])
    store = TokenStore(path)
    store.fetch(np.array([2, 0, 2]))
    store_files(path)[0].unlink()
    with pytest.raises(OSError, match="No such file"):
        store.fetch(np.array([0]))
