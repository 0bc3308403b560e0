"""Where a command's lines go."""

from __future__ import annotations

import os
import threading

import pytest

from nmt_async.errors import UserError
from nmt_async.translate.lines import output_lines


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with output_lines(pipe) as write:
        write("a line")
    reader.join(10)
    assert read == ["a line\n"]
    assert pipe.is_fifo()


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before\n")
    link.symlink_to(file)
    with output_lines(link) as write:
        write("after")
        assert file.read_text() == "before\n"
    assert link.is_symlink()
    assert file.read_text() == "after\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_closed_standard_output_is_a_mistake(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(UserError, match="standard output is closed; name a file with --output"), output_lines(None):
        pass
