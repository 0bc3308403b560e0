"""What watches the runs sees what it is there to see: a hang, work in vain, what is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from watched import Hang, WatchedRun

Started = Callable[[str], WatchedRun]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts Python code in the place of a run."""
    runs: list[WatchedRun] = []

    def start(code: str) -> WatchedRun:
        monkeypatch.setattr(
            "watched.START", lambda _, **options: subprocess.Popen([sys.executable, "-c", code], **options)
        )
        runs.append(WatchedRun(tmp_path, tmp_path / "run"))
        return runs[-1]

    monkeypatch.setattr("watched.HANG", 1.0)
    yield start
    for run in runs:
        run.end()


def test_a_process_that_waits_for_ever_hangs(started: Started) -> None:
    run = started("import time; time.sleep(100)")
    with pytest.raises(Hang, match=r"1 s nobody computed, 0 s were computed in vain"):
        run.passed(50)


def test_a_process_that_computes_is_no_hang_until_it_does_so_in_vain(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started("while True: pass")
    assert run.passed(2.0)
    monkeypatch.setattr("watched.IN_VAIN", 0.2)
    with pytest.raises(Hang, match=r"0 s nobody computed"):
        run.passed(50)


def test_a_process_that_outlives_its_parent_is_left_behind(started: Started) -> None:
    run = started("import subprocess; subprocess.Popen(['sleep', '100'], stdout=subprocess.DEVNULL)")
    assert not run.passed(50)
    (left,) = run.left_behind()
    assert left.startswith("process ")


def test_shared_memory_that_outlives_its_run_is_left_behind(started: Started) -> None:
    path = Path("/dev/shm/nmt-async-test-of-what-is-left")
    run = started(f"open('{path}', 'w')")
    try:
        assert not run.passed(50)
        assert run.left_behind() == [str(path)]
    finally:
        path.unlink()


def test_what_a_run_says_is_kept(started: Started) -> None:
    run = started("import sys; print('one'); print('two', file=sys.stderr)")
    assert not run.passed(50)
    assert sorted(run.said().split()) == ["one", "two"]
