"""The WMT14 recipe without network and GPU: what it would run, on a small corpus in the place of the prepared data."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from nmt_async.cli.main import run as nmt_async

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "wmt14-en-de" / "run.sh"


def recipe(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in ("DATA", "DEVICES", "STOP_AFTER")}
    return subprocess.run(
        ["bash", str(SCRIPT), *words], env={**kept, "PATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def commands(printed: str) -> list[list[str]]:
    """The words of each command, without what is redirected."""
    text = printed.replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return [shlex.split(re.split(r" [<|] ", line)[0]) for line in lines]


@pytest.mark.parametrize(("mode", "staleness"), [
    ("hybrid", "about 0.75"), ("sync", "none"),
])  # fmt: skip
def test_training_is_described_on_prepared_data(small_data: Path, mode: str, staleness: str) -> None:
    before = sorted((ROOT / "runs").rglob("*")) if (ROOT / "runs").exists() else None
    done = recipe(mode, "--dry-run", DATA=str(small_data), DEVICES="cpu")
    assert (done.returncode, done.stderr) == (0, "")
    update = r"an update sums 4 pushes of about [\d,]+ target tokens: effective batch about [\d,]+; staleness "
    assert re.search(update + staleness, done.stdout)
    assert '"dim_emb": 512' in done.stdout
    assert '"norm": "post"' in done.stdout
    assert "--lr-warmup 16k is about " in done.stdout
    assert "mtdata" not in done.stdout
    assert (sorted((ROOT / "runs").rglob("*")) if (ROOT / "runs").exists() else None) == before


def test_every_command_is_accepted_by_what_it_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = recipe("--dry-run", DATA=str(tmp_path / "absent"), DEVICES="cpu")
    assert (done.returncode, done.stderr) == (0, "")
    words = commands(done.stdout)
    assert [line[:2] for line in words if line[0] == "nmt-async"] == [
        ["nmt-async", name] for name in ("prepare", "train", "translate", "evaluate")
    ]
    assert [line[1:5] for line in words if line[0].endswith("bin/mtdata")] == [["get", "--langs", "eng-deu", "--merge"]]
    # --dump-config reads all options and stops.
    for line in words:
        if line[0] == "nmt-async":
            assert nmt_async([*line[1:], "--dump-config"]) == 0, capsys.readouterr().err


def test_devices_and_length_are_the_users(tmp_path: Path) -> None:
    done = recipe("async", "--dry-run", DATA=str(tmp_path / "absent"), DEVICES="2,3", STOP_AFTER="1Gt")
    train, translate = (line for line in commands(done.stdout) if line[:1] == ["nmt-async"] and line[1][0] == "t")
    pairs = dict(itertools.pairwise(train))
    assert (pairs["--devices"], pairs["--stop-after"], pairs["--accumulate"]) == ("2,3", "1Gt", "1")
    assert dict(itertools.pairwise(translate))["--device"] == "cuda:2"


def test_an_unknown_word_is_one_sentence() -> None:
    done = recipe("semi-sync")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "run.sh: 'semi-sync' is not known; give hybrid, sync or async, and --dry-run to see what it would do.\n"
    )
