"""Settings run by the real command, several side by side; what is finished is kept, what is broken off goes on."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import commands
import pytest

from nmt_async.display.study import LineDisplay
from nmt_async.errors import RunFailure, UserError
from nmt_async.study.result import Result
from nmt_async.study.runner import StudyFolder, run_all, side_by_side
from nmt_async.study.setting import Setting, check_names, typed
from nmt_async.text.prepared import PreparedData
from nmt_async.training.interruptions import Interrupted
from tests.training_runs import PATIENCE, alive, children_of, family, until

BASE = {
    "dim-emb": 16, "heads": 2, "dim-ffn": 32, "enc-depth": 1, "dec-depth": 1, "mini-batch-words": 300, "workers": 3,
    "cluster": "simulated", "profile": "paper", "stop-after": "12u", "valid-freq": "4u", "disp-freq": "2u",
    "save-freq": "2u", "keep-last": 1, "keep-best": 0, "valid-translate": False, "lr-warmup": "20u",
}  # fmt: skip


def setting(mode: str, seed: int = 1, **more: object) -> Setting:
    options = {**BASE, "sync-mode": mode, **{name.replace("_", "-"): value for name, value in more.items()}}
    return Setting(mode, seed, options)


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings' commands are forked."""
    monkeypatch.setattr(subprocess, "Popen", commands.popen)


class Display(LineDisplay):
    """Keeps what it was told."""

    def __init__(self, act=lambda _: None) -> None:
        super().__init__(2, quiet=True)
        self.told: list[tuple[str, str]] = []
        self.act = act

    def begun(self, setting: Setting) -> None:
        super().begun(setting)
        self.told.append(("begun", setting.name))

    def at(self, setting: Setting, share: float) -> None:
        super().at(setting, share)
        self.act(share)

    def finished(self, setting: Setting, result: Result) -> None:
        super().finished(setting, result)
        self.told.append(("finished", setting.name))

    def failed(self, setting: Setting, why: str) -> None:
        super().failed(setting, why)
        self.told.append(("failed", why))


def run(out: Path, data: Path, settings: list[Setting], display: Display | None = None, jobs: int = 2) -> list[Result]:
    return run_all(
        StudyFolder(out, out / "results"), "test", PreparedData.open(data), settings, jobs, display or Display()
    )


def test_settings_become_results_that_name_their_command_and_are_kept(small_data: Path, tmp_path: Path) -> None:
    settings = [setting("sync"), setting("hybrid", accumulate=3)]
    results = run(tmp_path / "study", small_data, settings)
    assert [result.setting for result in results] == settings
    for result in results:
        assert result.updates == 12
        assert not result.diverged
        assert [point.update for point in result.points] == [4, 8, 12]
        assert len(result.points[-1].resampled) == 200
        assert result.wall_seconds > 0
        words = shlex.split(result.command)
        assert words[:3] == ["nmt-async", "train", str(small_data)]
        assert words[words.index("--out") + 1] == str(tmp_path / "study" / result.folder)
    display = Display()
    again = run(tmp_path / "study", small_data, settings, display)
    assert again == [Result.read(tmp_path / f"study/results/{one.name}.json") for one in settings]
    assert [what for what, _ in display.told] == ["finished"] * 2


def test_the_named_command_makes_the_same_run_again(small_data: Path, tmp_path: Path) -> None:
    (result,) = run(tmp_path / "study", small_data, [setting("async")], jobs=1)
    words = shlex.split(result.command)
    words[words.index("--out") + 1] = str(tmp_path / "again")
    script = Path(sys.executable).with_name(words[0])  # as it is installed
    subprocess.run([script, *words[1:]], check=True, capture_output=True, timeout=PATIENCE)
    figures = [
        (run / "validation.jsonl").read_text() for run in (tmp_path / "study" / result.folder, tmp_path / "again")
    ]
    assert figures[0] == figures[1]


def test_an_interrupted_study_leaves_no_process_and_goes_on_to_the_same_result(
    small_data: Path, tmp_path: Path
) -> None:
    one = setting("hybrid", accumulate=2, stop_after="40u")
    (whole,) = run(tmp_path / "whole", small_data, [one])
    children: list[int] = []
    others = family(os.getpid())  # of earlier tests in this process

    def interrupt(share: float) -> None:
        if share > 0.1 and not children:
            children.extend(family(os.getpid()) - others)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(tmp_path / "broken", small_data, [one], Display(interrupt))
    assert children
    assert not any(map(alive, children))
    assert not (tmp_path / "broken/results" / f"{one.name}.json").exists()
    (result,) = run(tmp_path / "broken", small_data, [one])
    assert result.points == whole.points
    assert result.staleness == whole.staleness


def test_when_the_study_is_killed_its_runs_end_too(small_data: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.study.test_runner import run, setting\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), [setting('sync', stop_after='100ku')])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "study"), str(small_data)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "tests"},
    )
    until(lambda: (tmp_path / "study/runs/sync.seed1/metrics.jsonl").exists(), "the run to begin")
    children = children_of(process.pid)
    process.kill()
    process.wait()
    assert children
    until(lambda: not any(map(alive, children)), "the runs to end")


def test_a_setting_that_diverges_is_a_result_and_one_that_fails_stops_no_other(
    small_data: Path, tmp_path: Path
) -> None:
    bad, good = setting("sync", norm="nowhere"), setting("async")
    display = Display()
    with pytest.raises(RunFailure, match=r"1 of 2 settings failed: sync.seed1 \(exit code 2, see .*sync.seed1.log\)"):
        run(tmp_path / "study", small_data, [bad, good], display)
    assert any(what == "failed" and "--norm" in why for what, why in display.told)
    assert (tmp_path / "study/results/async.seed1.json").exists()
    wild = setting("async", learn_rate=1e30, clip_norm=0, lr_warmup="0u", lr_decay="none")
    (result,) = run(tmp_path / "wild", small_data, [wild])
    assert "not finite" in result.diverged
    assert not result.failed


def test_a_run_that_fails_is_no_result_whatever_its_words_are(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "not finite"
    (out / "runs/sync.seed1/source.model").mkdir(parents=True)  # so that the run cannot write the file of this name
    folder = StudyFolder(out, out / "results")
    (out / "study.json").write_text(f'{{"kind": "test", "data": "{PreparedData.open(small_data).fingerprint}"}}')
    display = Display()
    with pytest.raises(RunFailure, match=r"1 of 1 settings failed: sync.seed1 \(exit code 1, "):
        run(out, small_data, [setting("sync")], display)
    assert any(what == "failed" and "not finite" in why for what, why in display.told)
    assert not folder.result_file(setting("sync")).exists()


def test_a_run_whose_files_are_damaged_stops_no_other(small_data: Path, tmp_path: Path) -> None:
    bad, good = setting("sync", stop_after="40u"), setting("async")

    def damage(share: float) -> None:
        if share > 0.1 and (path := tmp_path / "study/runs/sync.seed1/data.json").exists():
            path.write_text("{")

    display = Display(damage)
    with pytest.raises(RunFailure, match=r"1 of 2 settings failed: sync.seed1 \(exit code 0, "):
        run(tmp_path / "study", small_data, [bad, good], display)
    assert any(what == "failed" and "data.json cannot be read" in why for what, why in display.told)
    assert (tmp_path / "study/results/async.seed1.json").exists()


@pytest.mark.parametrize(("change", "said"), [("options", "of other options than"), ("data", "made on other data")])
def test_a_result_of_something_else_is_refused(small_data: Path, tmp_path: Path, change: str, said: str) -> None:
    (result,) = run(tmp_path / "study", small_data, [setting("sync")])
    path = tmp_path / "study/results/sync.seed1.json"
    if change == "data":
        dataclasses.replace(result, data="other").write(path)
    with pytest.raises(UserError, match=said):
        run(tmp_path / "study", small_data, [setting("sync", dropout=0.0) if change == "options" else setting("sync")])


def test_a_folder_of_something_else_is_refused(small_data: Path, tmp_path: Path) -> None:
    data = PreparedData.open(small_data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else is in this place"):
        run(tmp_path / "other", small_data, [])
    folder = StudyFolder(tmp_path / "study", tmp_path / "study/results")
    lock = folder.begin("compare", data.fingerprint)
    with pytest.raises(UserError, match="another process is writing this comparison"):
        folder.begin("compare", data.fingerprint)
    lock.close()
    for kind, fingerprint in (("reproduction", data.fingerprint), ("compare", "other")):
        with pytest.raises(UserError, match="holds another comparison"):
            folder.begin(kind, fingerprint)
    (tmp_path / "study/study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json cannot be read"):
        folder.begin("compare", data.fingerprint)


def test_the_same_setting_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'sync' with seed 1 is asked for twice"):
        check_names([setting("sync"), setting("sync", 2), setting("sync")])


def test_options_become_words_as_one_types_them() -> None:
    assert typed({"sync-mode": "sync", "valid-translate": False, "learn-rate": 0.5}) == [
        "--sync-mode", "sync", "--no-valid-translate", "--learn-rate", "0.5",
    ]  # fmt: skip


def test_simulated_settings_run_one_a_core_and_real_ones_need_a_core_a_worker() -> None:
    assert side_by_side("simulated", 4, 2) == 2
    assert side_by_side("processes", 2, 2) == side_by_side("processes", 4, 2) == 1
    assert side_by_side("processes", 2, 8) == 4
