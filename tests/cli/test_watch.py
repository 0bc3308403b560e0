"""``nmt-async watch`` beside a real trainer: it follows, it ends when the run has ended, and it says why."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Command
from commands import run as run_command
from nmt_async.cli.main import run
from training_runs import PATIENCE, run_small, small_options, start_typed, until

from nmt_async.reading import read_json_lines
from nmt_async.text.prepared import PreparedData
from nmt_async.training.run_folder import RunFolder, settled

ENDLESS = {"workers": 1, "stop_after": "1000e", "disp_freq": "2", "save_freq": "4", "valid_freq": "1M"}


@pytest.fixture(scope="module")
def ended_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed and has ended, not to be changed."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    for stop in ("4", "8"):
        run_small(small_data, folder, workers=1, disp_freq="2", stop_after=stop)
    return folder


def updates(text: str) -> list[int]:
    found = re.findall(r"^epoch [\d,]+ \| update ([\d,]+) ", text, flags=re.MULTILINE)
    return [int(number.replace(",", "")) for number in found]


def on_terminal(folder: Path, seen: str, then: Callable[[subprocess.Popen[bytes]], object]) -> tuple[str, int]:
    """What the command shows on a terminal of its own, and its exit code; ``then`` is done once ``seen`` is there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    surroundings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = Command(
        ["watch", str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings | {"TERM": "xterm"}
    )
    os.close(theirs)
    text, limit, done = "", time.monotonic() + PATIENCE, False
    while True:
        assert time.monotonic() < limit, text
        try:
            text += re.sub(r"\x1b\[[\d;]*m", "", os.read(ours, 65536).decode(errors="replace"))
        except OSError:  # the command has closed its side
            break
        if not done and seen in text:
            then(process)
            done = True
    os.close(ours)
    assert done, text
    return text, process.wait(PATIENCE)


def test_an_ended_run_is_told_in_lines_and_the_command_ends(
    ended_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["watch", str(ended_run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("run: hybrid, each push an update | 1 worker on cpu | small, ")
    assert updates(said) == [2, 4, 6, 8]
    assert said.index("update 4 ") < said.index("stopped at update 4 by --stop-after 4u") < said.index("update 6 ")
    assert said.endswith("stopped at update 8 by --stop-after 8u\n")


def test_once_is_the_title_the_last_reports_and_the_last_messages(
    ended_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["watch", str(ended_run), "--once"]) == 0
    said = capsys.readouterr().out
    assert updates(said) == [8]
    assert re.findall(r"^validation at update (\d+)", said, flags=re.MULTILINE) == ["8"]
    assert said.endswith("stopped at update 8 by --stop-after 8u\n")
    assert run(["watch", str(ended_run), "--once", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert run(["watch", str(folder)]) == 2
        assert capsys.readouterr().err == f"nmt-async: {folder} is not the folder of a run (no config.yaml in it).\n"


@contextmanager
def endless_training(data: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A trainer that has made two reports and goes on until it is stopped."""
    with start_typed(data, folder, subprocess.DEVNULL, **ENDLESS) as trainer:
        try:
            until(lambda: len(reports(folder)) >= 2, "two reports")
            yield trainer
        finally:
            trainer.kill()
            trainer.communicate(timeout=PATIENCE)


def reports(folder: Path) -> list[int]:
    """Updates of the training reports so far."""
    path = folder / "metrics.jsonl"
    return [line["update"] for line in read_json_lines(path) if line["kind"] == "train"] if path.exists() else []


def test_a_run_is_followed_until_its_trainer_is_told_to_stop(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with endless_training(small_data, folder) as trainer:
        once = run_command(["watch", str(folder), "--once"], capture_output=True, text=True, timeout=PATIENCE)
        assert once.stdout.endswith("\nThe run goes on.\n")
        with Command(["watch", str(folder)], stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            said = watching.stdout.readline()
            trainer.send_signal(signal.SIGTERM)
            said += watching.stdout.read()
    assert watching.returncode == 0
    assert said.startswith("run: hybrid, each push an update")
    assert updates(said) == reports(folder)
    assert re.search(r"\nstopped at update [\d,]+ by signal SIGTERM\n$", said)


def test_a_run_that_was_killed_is_said_to_be(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with endless_training(small_data, folder) as trainer:
        text, code = on_terminal(folder, " left", lambda _: trainer.kill())
    assert code == 0
    last = " ".join(text[text.rindex("hybrid, ") :].split())
    assert "ended" in last
    assert "and train.log tells of no end: the run was cut off; give its train command again to go on." in last


def test_ctrl_c_ends_the_watching_and_not_the_run(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock = RunFolder(folder, settled(small_options(folder)), PreparedData.open(small_data))
    text, code = on_terminal(folder, "hybrid, 2 pushes", lambda process: process.send_signal(signal.SIGINT))
    lock.close()
    assert code == 130
    assert text.endswith("nmt-async: interrupted.\r\n")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_looking_at_a_run_does_not_keep_its_trainer_from_beginning(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options, data = settled(small_options(folder)), PreparedData.open(small_data)
    RunFolder(folder, options, data).close()
    with (folder / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        RunFolder(folder, options, data).close()


def test_a_reader_that_goes_away_ends_the_watching(ended_run: Path) -> None:
    with Command(["watch", str(ended_run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 0
