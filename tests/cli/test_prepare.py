"""``nmt-async prepare`` as typed: what it prints, its exit codes, its end by signal and on a full disk."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest
from nmt_async.cli.main import run

from nmt_async.text.prepared import PreparedData

SMALL = ["--vocab-size", "80", "--character-coverage", "1"]


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """Options that name a small training text."""
    numbers = [f"{n} and {n * n} are {n + n * n}" for n in range(200)]
    (tmp_path / "train.en").write_text("".join(line + "\n" for line in numbers))
    (tmp_path / "train.de").write_text("".join(line.replace("and", "und") + "\n" for line in numbers))
    return ["--train-source", str(tmp_path / "train.en"), "--train-target", str(tmp_path / "train.de")]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_prepare_says_what_it_did(tmp_path: Path, corpus: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "train.en").open("a") as source, (tmp_path / "train.de").open("a") as target:
        source.write("\n")
        target.write("leer\n")
    assert run(["prepare", *corpus, *SMALL, "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    for line in (r"read\s+201", r"- empty\s+1", r"kept\s+200", r"source tokens\s+\d", r"target unknown\s+0\.000%",
                 r"joint vocabulary\s+80"):  # fmt: skip
        assert re.search(line, said.out)
    assert re.search(r"reading: 201 lines, [\d,]+ lines/s", said.err)
    assert re.search(r"encoding train: 200 lines, [\d,]+ lines/s", said.err)
    assert run(["prepare", *corpus, *SMALL, "--out", str(tmp_path / "data")]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_quiet_says_nothing(tmp_path: Path, corpus: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", *corpus, *SMALL, "--quiet", "--out", str(tmp_path / "data")]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_mistake_is_one_sentence_and_exit_code_two(
    tmp_path: Path, corpus: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prepare", *corpus, "--out", str(tmp_path / "data")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"\nnmt-async: --vocab-size 8,000 is more .* largest possible is \d+\.\n$", said.err)
    assert run(["prepare", *corpus, "--vocab-type", "words"]) == 2
    assert "--vocab-type: 'words' is not known; choose one of unigram, bpe" in capsys.readouterr().err


def test_a_declaration_leaves_no_room_for_other_text(
    tmp_path: Path, corpus: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = tmp_path / "corpora.yaml"
    source, target = corpus[1::2]
    declaration.write_text(f"corpora: [{{name: one, source: {source}, target: {target}, tag: __one__, weight: 2}}]\n")
    typed = ["prepare", "--corpora", str(declaration), *SMALL, "--out", str(tmp_path / "data")]
    for words in (corpus, ["--valid-source", source, "--valid-target", target], ["--train-tsv", source]):
        assert run([*typed, *words]) == 2
        assert re.fullmatch(
            rf"nmt-async: {words[0]} means nothing with --corpora; leave it out\.\n", capsys.readouterr().err
        )
    declaration.write_text("corpora: [")
    assert run(typed) == 2
    assert re.fullmatch(r"nmt-async: .*corpora\.yaml is not YAML \(.*\)\.\n", capsys.readouterr().err)
    assert not (tmp_path / "data").exists()
    declaration.write_text(f"corpora: [{{name: one, source: {source}, target: {target}, tag: __one__, weight: 2}}]\n")
    assert run(typed) == 0
    assert re.search(r"one\s+200\s+[\d,]+\s+[\d,]+\s+0\s+__one__\s+2", capsys.readouterr().out)


def test_options_come_from_a_file_as_they_were_dumped(
    tmp_path: Path, corpus: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prepare", *corpus, *SMALL, "--out", str(tmp_path / "data"), "--dump-config"]) == 0
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    assert not (tmp_path / "data").exists()
    assert run(["prepare", "--config", str(tmp_path / "config.yaml"), "--quiet"]) == 0
    assert PreparedData.open(tmp_path / "data").manifest["options"]["vocab-size"] == 80


def test_standard_input_is_read_once_and_recognised_again(tmp_path: Path, corpus: list[str]) -> None:
    lines = zip(*((tmp_path / name).read_text().splitlines() for name in ("train.en", "train.de")), strict=True)
    text = "".join(f"{source}\t{target}\n" for source, target in lines).encode()
    typed = ["prepare", "--train-tsv", "-", *SMALL, "--out", str(tmp_path / "piped")]
    commands.run(typed, input=text, check=True, timeout=60)
    assert run(["prepare", *corpus, *SMALL, "--out", str(tmp_path / "files"), "--quiet"]) == 0
    piped, files = (PreparedData.open(tmp_path / name) for name in ("piped", "files"))
    assert piped.fingerprint == files.fingerprint
    again = commands.run(typed, input=text, check=True, timeout=60, capture_output=True, text=False)
    assert b"nothing to do" in again.stderr
    other = commands.run(typed, input=text + b"more\tmehr\n", timeout=60, capture_output=True, check=False)
    assert other.returncode == 2
    assert b"another --train-tsv than standard input" in other.stderr


def test_a_full_disk_is_a_failure_that_leaves_nothing(tmp_path: Path, corpus: list[str]) -> None:
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "from nmt_async.cli.start import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-B", "-c", limited, "prepare", *corpus, *SMALL, "--quiet", "--out", str(tmp_path / "data")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert re.fullmatch(r"nmt-async: --out: writing .*data failed \(file too large\); .*\n", ended.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.de", "train.en"]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with commands.Command(
        ["prepare", "--train-tsv", "-", "--out", str(tmp_path / "data")], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"a\tb\n" * 1000)
        process.stdin.flush()
        limit = time.monotonic() + 60
        while not hidden(tmp_path):
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_sees_a_bar(tmp_path: Path, corpus: list[str]) -> None:
    parent, child = pty.openpty()
    with commands.Command(
        ["prepare", *corpus, *SMALL, "--out", str(tmp_path / "data")], stdout=child, stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(child)
        said = b""
        try:
            while block := os.read(parent, 4096):
                said += block
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(parent)
        assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", said.decode())
    assert re.search(r"encoding train ━+ 100% 200 lines, [\d,]+ lines/s left", text)
