"""docs/tutorial.md, followed from its first command to its last on a smaller corpus and model."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from documents import code_lines, fenced, read
from nmt_async.cli.main import run as nmt_async

TUTORIAL = read("docs/tutorial.md")
SMALLER = {
    "--train 8000 --valid 200 --test 200": "--train 400 --valid 10 --test 10",
    "--vocab-size 1000": "--vocab-size 400",
    "--preset tiny": "--dim-emb 16 --heads 2 --dim-ffn 32 --enc-depth 1 --dec-depth 1 --cpu-threads 1",
    "--save-freq 100": "--save-freq 3",
    "--valid-freq 100 --valid-sentences 100": "--valid-freq 6 --valid-sentences 2",
    "--stop-after 200": "--stop-after 6",
    "--stop-after 900": "--stop-after 12",
    "--verify corpus/test.en": "--verify corpus/test.en --verify-share 0",
}
PATIENCE = 150


def commands() -> list[str]:
    """What the tutorial has its reader type after the prompt, smaller."""
    typed = [line.removeprefix("$ ") for line in code_lines(TUTORIAL) if line.startswith("$ ")]
    for size, smaller in SMALLER.items():
        assert any(size in line for line in typed), f"the tutorial has no {size} any more"
        typed = [line.replace(size, smaller) for line in typed]
    return typed


def programs() -> dict[str, str]:
    """The Python programs that its reader saves, by their names."""
    return dict(zip(re.findall(r"[Ss]ave this as `([^`]+)`", TUTORIAL), fenced(TUTORIAL, "python"), strict=True))


def redirected(line: str) -> tuple[list[str], str | None, str | None]:
    """The words of a command, and the files from which it reads and to which it writes."""
    words = shlex.split(line)
    files = {sign: words[words.index(sign) + 1] if sign in words else None for sign in "<>"}
    end = min([words.index(sign) for sign in "<>" if sign in words], default=len(words))
    return words[:end], files["<"], files[">"]


def call(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs a call of nmt-async as a shell would, but in this process, which has imported torch already."""
    words, source, target = redirected(line)
    kept = os.dup(0)
    try:
        if source is not None:
            with open(source, "rb") as file:
                os.dup2(file.fileno(), 0)
        code = nmt_async(words[1:])
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    said = capfd.readouterr()
    assert code == 0, f"{line}\n{said.err}"
    if target is not None:
        Path(target).write_text(said.out, encoding="utf-8")


def ask(server: list[str], text: str) -> str:
    """The answer of the tutorial's server, which is started for it, to a request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *server[1:-1], str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(address, text.encode(), timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def test_every_step_of_the_tutorial_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in programs().items():
        Path(name).write_text(text, encoding="utf-8")
    for line in commands():
        words = shlex.split(line)
        if words[:2] == ["nmt-async", "compare"] or "comparison/report.md" in words:
            continue  # tests/cli/test_compare.py trains several models and reads their page
        if words[0] == "nmt-async":
            call(line, capfd)
        elif words[:2] == ["python", "translate.py"]:
            runpy.run_path("translate.py")
            assert len(capfd.readouterr().out.splitlines()) == 2
        elif words[:2] == ["python", "serve.py"]:
            server = words
        elif words[0] == "curl":
            assert ask(server, "The house.\n\nThe dog.").count("\n") == 3
        else:
            words[0] = sys.executable if words[0] == "python" else words[0]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    assert len(Path("test.hypothesis.de").read_text(encoding="utf-8").splitlines()) == 10
