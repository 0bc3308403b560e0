"""The table of small models, made of a run as small as they come."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from nmt_async.cli.main import run
from training_runs import SIZES

EXAMPLE = Path(__file__).parents[2] / "examples" / "small-models"
SCRIPT = EXAMPLE / "table.py"


@pytest.mark.parametrize("script", ["run.sh", "distil.sh"])
def test_every_command_of_a_recipe_is_accepted(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(EXAMPLE / script), "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.replace("\\\n", " ").splitlines()
    typed = [shlex.split(line.removeprefix("$ ").partition("|")[0]) for line in lines if line.startswith("$ ")]
    for words in typed:
        if words[0] == "nmt-async":
            assert run([*words[1:], "--dump-config"]) == 0, capsys.readouterr().err
        else:
            assert (EXAMPLE.parents[1] / words[1]).is_file()
            if "--" in words:  # which hands them on to train
                further = ["--stop-after", "1Mt", *words[words.index("--") + 1 :]]
                assert run(["train", "data", *further, "--dump-config"]) == 0
    assert sum(words[0] == "nmt-async" for words in typed) == {"run.sh": 2, "distil.sh": 2 + 3 * 3}[script]


def test_the_table_has_every_model(real_run: Path, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("the dog sees the cat\na small bird\n")
    (tmp_path / "reference").write_text("der Hund sieht die Katze\nein kleiner Vogel\n")
    words = [str(real_run), str(small_data), "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    words += ["--reference", str(tmp_path / "reference"), "--bits", "4", "--schemes", "log", "--rounds", "1"]
    training = ["--cluster", "simulated", "--mini-batch-words", str(SIZES["mini_batch_words"]), "--cpu-threads", "1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--stop-after", "2u", "--", *training],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table] == [
        "model", "float32", "float32, CTranslate2", "int8, CTranslate2", "int8, torch (float32 on the disk)",
        "4-bit log", "float32, trained as long again", "4-bit log, retrained",
    ]  # fmt: skip
    assert all(len(row) == 7 for row in table)
    sizes = {row[0]: int(row[1].replace(",", "")) for row in table[1:]}
    assert sizes["4-bit log"] < sizes["float32"]
    assert sizes["4-bit log, retrained"] == sizes["4-bit log"]
    assert (tmp_path / "out" / "table.md").read_text() == done.stdout
