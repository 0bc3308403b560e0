"""What is answered without torch, which takes longer to import than all of these answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nmt_async.cli.main import COMMANDS

ARGUMENTS = {"prepare": 0, "simulate": 0, "export": 2, "study": 2, "quantize": 2, "bench prepare": 0}
PROGRAM = """
import contextlib, io, json, sys
from nmt_async.cli.main import run
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(words)
    print(json.dumps([code, "torch" in sys.modules, said.getvalue()]))
"""
NAMES = [*(name for name in COMMANDS if name != "bench"), "bench training", "bench decode", "bench prepare"]
BAD_VALUES = {
    "prepare": "--vocab-size many", "doctor": "--seed -1", "train": "--sync-mode soon", "watch": "--once=maybe",
    "translate": "--output-sampling soon", "evaluate": "--weights 0", "score": "--threshold 2", "average": "--last 0",
    "export": "--format tex", "import": "--vocabs one", "simulate": "--modes fast", "report": "--out",
    "compare": "--intervals days", "study": "--jobs 0", "bench training": "--rounds 0", "bench decode": "--rounds 0",
    "bench prepare": "--pairs 0",
    "replay": "--until 0", "quantize": "--bits 5", "distil": "--best-share 2",
}  # fmt: skip


def answers(*lines: list[str]) -> list[tuple[int, bool, str]]:
    """Of each command line the exit code, whether torch had been imported by then, and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_help_and_mistakes_are_answered_without_torch(name: str, tmp_path: Path) -> None:
    words = [*name.split(), *["some"] * ARGUMENTS.get(name, 1)]
    unfit = tmp_path / "unfit.yaml"
    unfit.write_text("no-such-option: 1\n")
    asked = answers(
        [*name.split(), "--help"], [*words, "--no-such-option"], [*words, *BAD_VALUES[name].split()],
        [*words, "--config", str(unfit)], [*words, "--dump-config"],
    )  # fmt: skip
    assert [code for code, _, _ in asked[:4]] == [0, 2, 2, 2]
    assert not any(imported for _, imported, _ in asked)
    assert BAD_VALUES[name].split()[0].split("=")[0] in asked[2][2]
    assert asked[2][2].count("\n") == 1
    assert "no option is called 'no-such-option'" in asked[3][2]


def test_the_list_of_commands_the_version_and_a_mistyped_command_need_no_torch() -> None:
    asked = answers(["--help"], ["-h"], ["--version"], ["trian"])
    assert [(code, imported) for code, imported, _ in asked] == [(0, False)] * 3 + [(2, False)]
    assert "train" in asked[3][2]


def test_a_command_imports_the_modules_of_no_other() -> None:
    program = "import sys; from nmt_async.cli.main import run; run(['average', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.split())
    assert "nmt_async.cli.average" in loaded
    assert not {f"nmt_async.cli.{name}" for name in COMMANDS if name != "average"} & loaded
