"""A growing file is read once, line by line, whatever its writer does to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nmt_async.display.growing import GrowingFile


@given(st.lists(st.binary(max_size=12).map(lambda part: part.replace(b"x", b"\n")), max_size=12))
def test_however_a_file_is_written_each_whole_line_comes_once(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        growing = GrowingFile(path)
        read = []
        with path.open("ab", buffering=0) as file:
            for part in parts:
                file.write(part)
                anew, lines = growing.news()
                assert not anew
                read += lines
        growing.close()
    assert read == b"".join(parts).decode(errors="replace").split("\n")[:-1]


def test_a_file_that_takes_its_place_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    growing = GrowingFile(path)
    assert growing.news() == (False, [])
    path.write_text("1\n2\n3")
    assert growing.news() == (False, ["1", "2"])
    (tmp_path / "beside").write_text("1\nother\n")
    os.replace(tmp_path / "beside", path)
    assert growing.news() == (True, ["1", "other"])
    assert growing.news() == (False, [])


def test_a_file_that_was_shortened_is_read_from_its_start_and_one_that_is_gone_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n2\n")
    growing = GrowingFile(path)
    growing.news()
    path.write_text("3\n")
    assert growing.news() == (True, ["3"])
    path.unlink()
    assert growing.news() == (False, [])
