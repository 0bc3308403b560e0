from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.translate.lines import TextFile, text_lines


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=10))
def test_only_a_line_feed_ends_a_line(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(b"".join(b"x" + line + b"\n" for line in lines))
    assert len(list(text_lines(path, "--input"))) == len(lines)


def test_bytes_that_are_not_utf8_are_replaced(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9 \xff\nna\xc3\xafve")
    assert list(text_lines(path, "--input")) == ["caf\ufffd \ufffd", "naïve"]


def test_lines_that_are_not_utf8_are_named_and_then_counted(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"a\n\xff\n" * 5)
    said: list[str] = []
    assert list(TextFile(path, "--source", warn=said.append)) == ["a", "\ufffd"] * 5
    assert said[0] == f"line 2 of {path} is not UTF-8 (byte 1 is 0xff); what cannot be read becomes U+FFFD."
    assert [sentence.split(" of ")[0] for sentence in said] == ["line 2", "line 4", "line 6", "5 lines"]


def test_a_strict_reader_ends_at_the_first_line_that_is_not_utf8(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("naïve\n".encode() + b"na\xefve\n")
    lines = iter(TextFile(path, "--source", strict=True))
    assert next(lines) == "naïve"
    with pytest.raises(UserError, match=r"^--source: line 2 of .* is not UTF-8 \(byte 3 is 0xef\); convert the file"):
        next(lines)


def test_it_knows_how_far_it_is_and_whether_anything_has_to_be_waited_for(tmp_path):
    path, pipe = tmp_path / "text", tmp_path / "pipe"
    path.write_text("one\ntwo\n")
    os.mkfifo(pipe)
    file = TextFile(path, "--source")
    assert (file.size, file.read, file.at_hand) == (8, 0, True)
    assert list(file) == list(file.again()) == ["one", "two"]
    assert file.read == 8
    assert not TextFile(pipe, "--source").at_hand
