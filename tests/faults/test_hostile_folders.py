"""Folders made to do harm: each command refuses them in a sentence, runs nothing, and takes no memory for them.

All commands run in one process whose memory is limited (``limited.py``), so a size that was believed would show.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import DATA, HASHES_FIRST, MARK, MODELS, RESULTS, RESUME, RUNS, STUDIES, STUDY
from training_runs import typed


def commands(folder: Path, data: Path, run: Path) -> Iterator[tuple[str, list[str], str]]:
    """Name of the case, command line, what it must say."""
    out = str(folder / "out")

    def copied(original: Path, name: str, change: Callable[[Path], object]) -> str:
        copy = Path(shutil.copytree(original, folder / name.replace(" ", "-")))
        change(copy)
        return str(copy)

    text = str(data / "valid.source.txt")
    for name, (change, said) in MODELS.items():
        model = copied(run, f"model {name}", change)
        yield f"translate, {name}", ["translate", model, "-i", text, "-o", out], said
        yield f"evaluate, {name}", ["evaluate", model, "--source", text, "-r", text], said
    for name, (change, said) in DATA.items():
        hostile = copied(data, f"data {name}", change)
        yield f"train, {name}", ["train", hostile, *typed(Path(out))], said
        yield f"bench, {name}", ["bench", hostile, "--workers", "1"], said
        yield f"compare, {name}", ["compare", hostile, "--budget", "2e", "--out", out], said
        yield f"simulate, {name}", ["simulate", "--data", hostile, "--workers", "1"], said
        line = ["prepare", "--train-source", text, "--train-target", text, "--out", hostile]  # this reads all hashes
        yield f"prepare, {name}", line, HASHES_FIRST.get(name, said)
    for name, (spoil, told, said) in RUNS.items():
        for command in told:
            hostile = copied(run, f"run {name} {command}", spoil)
            line = {"watch": ["--once", hostile], "report": [hostile]}.get(command)
            yield f"{command}, {name}", [command, *(line or [str(data), *typed(Path(hostile), **RESUME)])], said
    (folder / "study.yaml").write_text(STUDY)
    for name, (found, said) in RESULTS.items():
        results = folder / f"results {name}"
        results.mkdir()
        (results / "only.seed1.json").write_bytes(found)
        line = ["study", str(folder / "study.yaml"), str(data), "--results", str(results), "--jobs", "1"]
        yield f"study, result: {name}", [*line, "--out", str(folder / f"study {name}")], said
    for name, (content, said) in STUDIES.items():
        file = folder / f"{name.replace(' ', '-')}.yaml"
        file.write_text(content)
        yield f"study, {name}", ["study", str(file), str(data), "--out", out], said
        yield f"simulate --profile, {name}", ["simulate", "--profile", str(file)], said
        yield f"train --config, {name}", ["train", str(data), "--config", str(file)], said


@pytest.fixture(scope="module")
def outcomes(small_data: Path, real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, str]]:
    """Exit code, output and errors of each case, and what its errors must say."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "precious").write_text("mine")
    cases = list(commands(folder, small_data, real_run))
    script = Path(__file__).with_name("limited.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps([line for _, line, _ in cases]), capture_output=True, text=True,
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=900, check=False,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), f"{cases[len(answers)]} ended the process: {done.returncode} {done.stderr}"
    assert list(folder.rglob(MARK)) == []
    assert (folder / "precious").read_text() == "mine"
    assert not (folder / "out").exists()
    return {name: (answer, said) for (name, _, said), answer in zip(cases, answers, strict=True)}


@pytest.mark.timeout(1000)
def test_each_is_refused_in_one_sentence(outcomes: dict[str, tuple[Any, str]]) -> None:
    wrong = {
        name: answer
        for name, (answer, said) in outcomes.items()
        if answer[0] != 2 or answer[1] or said not in answer[2] or not ends_in_a_sentence(answer[2])
    }
    assert not wrong, "\n".join(f"{name}: {answer}" for name, answer in wrong.items())


def ends_in_a_sentence(text: str) -> bool:
    """One line says what is wrong; those before it are warnings, such as of each damaged checkpoint."""
    *warnings, last = text.splitlines()
    return (
        last.startswith("nmt-async: ")
        and last.endswith(".")
        and len(text) < 3000
        and all(line.startswith("warning: ") for line in warnings)
    )
