"""Ctrl-C ends a command with one line and the exit code that shells know."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from commands import PATIENCE, Command


def test_ctrl_c_is_answered_with_one_line(tmp_path: Path) -> None:
    with Command(
        ["prepare", "--quiet", "--train-tsv", "-", "--out", str(tmp_path / "data")],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        limit = time.monotonic() + PATIENCE
        while not list(tmp_path.iterdir()):  # until it has begun to build the folder, and so reads
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"nmt-async: interrupted.\n"
