"""``nmt-async doctor`` as typed: what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from nmt_async.cli.doctor import row
from nmt_async.cli.main import run
from rich.console import Console
from training_runs import run_small, small_options, typed

from nmt_async.doctor.finding import Finding
from nmt_async.text.prepared import PreparedData
from nmt_async.training.run_folder import RunFolder, settled

SMALL = ["--no-trial", "--workers", "1"]


@pytest.fixture(scope="module")
def ended(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended") / "run"
    run_small(small_data, folder, cluster="simulated", workers=2, stop_after="3")
    return folder


def doctor(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run(["doctor", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def checks(out: str) -> dict[str, str]:
    """The verdict of each check, by its name."""
    return {line[7:31].strip(): line[:5].strip() for line in out.splitlines()[:-1]}


def test_the_machine_alone_needs_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = doctor(capsys, "--workers", 1, "--cpu-threads", 1)
    assert (code, err) == (0, "")
    assert {"torch", "devices", "cores"} <= checks(out).keys()
    assert out.endswith("Nothing is wrong.\n")


def test_data_is_looked_at_with_the_options_of_the_planned_run(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = typed(tmp_path / "run", keep_last=2)
    code, out, _ = doctor(capsys, small_data, *words, "--no-trial")
    assert code == 0
    assert checks(out).keys() >= {"data", "disk", "shared memory", "memory"}
    code, out, _ = doctor(capsys, small_data, *words, "--no-trial", "--keep-last", 10**9)
    assert code == 1
    assert checks(out)["disk"] == "wrong"
    assert out.endswith("checks found something wrong.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_knows_its_options_and_its_data(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = doctor(capsys, ended, "--no-trial")
    assert code == 0
    assert checks(out).keys() >= {"checkpoints", "journal", "metrics", "data", "disk", "memory"}
    code, out, err = doctor(capsys, ended, "--no-trial", "--seed", 5)
    assert code == 2
    assert "was begun with --seed 1, now it is 5" in err
    code, _, err = doctor(capsys, ended, "--no-trial", "--out", "elsewhere")
    assert code == 2
    assert err.endswith(f"--out elsewhere: the run is in {ended}; leave it out.\n")
    code, out, _ = doctor(capsys, ended, "--no-trial", "--keep-last", 10**9)
    assert code == 1


def test_what_is_wrong_is_told_for_programs_too(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(ended, tmp_path / "run")
    (copy / "checkpoints" / "step-3" / "state.json").unlink()
    code, out, _ = doctor(capsys, copy, "--no-trial", "--json")
    assert code == 1
    (wrong,) = [finding for finding in json.loads(out) if finding["verdict"] == "wrong"]
    assert wrong == {
        "check": "checkpoints",
        "verdict": "wrong",
        "found": f"{copy}/checkpoints/step-3: state.json is missing",
        "advice": "no checkpoint is whole: begin anew with another --out",
    }
    code, out, _ = doctor(capsys, copy, "--no-trial", "--quiet")
    assert code == 1
    assert all(line.startswith(("wrong", "note")) for line in out.splitlines())


def test_a_run_without_its_options_or_data_is_wrong(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(ended, tmp_path / "run")
    described = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**described, "folder": str(tmp_path / "gone")}))
    code, out, _ = doctor(capsys, copy, "--no-trial")
    assert code == 1
    assert checks(out)["data"] == "wrong"
    (copy / "data.json").write_text("{")
    assert checks(doctor(capsys, copy, "--no-trial")[1])["data"] == "wrong"
    (copy / "config.yaml").write_text("seed: [")
    code, out, _ = doctor(capsys, copy, "--no-trial")
    assert code == 1
    assert checks(out)["options"] == "wrong"
    assert checks(out)["checkpoints"] == "fine"


def test_damaged_data_is_wrong(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(small_data, tmp_path / "data")
    (copy / "train.target.tokens").write_bytes(b"")
    code, out, _ = doctor(capsys, copy, *SMALL, "--out", tmp_path / "run")
    assert code == 1
    assert checks(out)["data"] == "wrong"
    assert "disk" not in checks(out)


def test_a_trainer_at_work_is_noted(
    ended: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(ended, tmp_path / "run")
    options = settled(small_options(copy, cluster="simulated", workers=2))
    trainer = RunFolder(copy, options, PreparedData.open(small_data))
    try:
        assert checks(doctor(capsys, copy, "--no-trial")[1])["trainer"] == "note"
    finally:
        trainer.close()


def test_mistakes_are_one_sentence_and_exit_code_two(
    small_data: Path, ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        ([tmp_path], f"{tmp_path} is neither prepared data nor a run"),
        ([tmp_path / "absent"], "is no folder"),
        (["--workers", "0"], "--workers: 0 is too few"),
        ([small_data, *SMALL, "--out", tmp_path / "run", "--max-length", "1"], "--max-length 1: no training pair"),
        ([small_data, *SMALL, "--out", ended], "that run was begun with"),
    ):  # fmt: skip
        code, _, err = doctor(capsys, *words)
        assert code == 2
        assert sentence in err
        assert err.count("\n") == 1


def test_on_a_terminal_advice_stands_below_what_was_found() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    console.print(row(Finding("disk", "wrong", "1.2 GiB needed, 3 MiB are free", "free 1.2 GiB")))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0].startswith("wrong  disk ")
    assert all(line.startswith(33 * " ") for line in lines[1:])
    assert lines[-1].strip() == "free 1.2 GiB"
