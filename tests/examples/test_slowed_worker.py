"""The example of a slowed worker: workers stay on their cores, one of which is busy, and its README is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import COMMAND, PATIENCE, command_of, small_data, typed

from nmt_async.options import from_mapping
from nmt_async.report.document import is_current, study_results
from nmt_async.study.claims import read_claims
from nmt_async.study.declaration import read_declaration
from nmt_async.training.options import TrainOptions

__all__ = ["small_data"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "slowed-worker"
DECLARED = read_declaration(EXAMPLE / "study.yaml")
ASKED = DECLARED.sizes["full"].settings
CORES = sorted(os.sched_getaffinity(0))


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


TAKES_ITS_NAME = """
import ctypes
input()
ctypes.CDLL(None).prctl(15, b"worker 1", 0, 0, 0)
input()
"""


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_a_worker_is_kept_on_a_core_only_once_it_has_taken_its_parents_cores(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "one" / "train.log"
    log.parent.mkdir(parents=True)
    words = [sys.executable, str(EXAMPLE / "pinned.py"), "--watch", str(tmp_path), "--", "sleep", "600"]
    pinned = subprocess.Popen(words)
    worker = subprocess.Popen([sys.executable, "-c", TAKES_ITS_NAME], stdin=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    try:
        limit = time.monotonic() + PATIENCE
        while not children_of(pinned.pid) and time.monotonic() < limit:  # it has looked at the logs once
            time.sleep(0.1)
        log.write_text(f"[2026-01-01 00:00:00] [worker] 1 is process {worker.pid}\n")
        time.sleep(2.0)
        assert os.sched_getaffinity(worker.pid) == set(CORES)
        print(file=worker.stdin, flush=True)
        limit = time.monotonic() + PATIENCE
        while os.sched_getaffinity(worker.pid) != {CORES[1]} and time.monotonic() < limit:
            time.sleep(0.1)
        assert os.sched_getaffinity(worker.pid) == {CORES[1]}
    finally:
        for process in (pinned, worker):
            process.terminate()  # it hands it on to its command
            process.wait(PATIENCE)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_workers_are_kept_on_a_core_each_one_of_which_is_busy(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "study" / "runs" / "one"
    pinned = [sys.executable, str(EXAMPLE / "pinned.py"), "--watch", str(tmp_path / "study"), "--busy", "1", "--"]
    training = [*COMMAND, str(small_data), *typed(run, sync_mode="sync", accumulate=1, stop_after="1h", quiet="")]
    process = subprocess.Popen([*pinned, *(word for word in training if word)], stdout=subprocess.DEVNULL)
    seen: list[set[int]] = []
    busy: list[set[int]] = []
    try:
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit and seen != [{CORES[0]}, {CORES[1]}]:
            time.sleep(0.2)
            log = run / "train.log"
            told = [line.split() for line in log.read_text().split("\n") if "[worker]" in line] if log.exists() else []
            seen = [os.sched_getaffinity(int(words[-1])) for words in told]
        busy = [os.sched_getaffinity(child) for child in children_of(process.pid) if "while True" in command_of(child)]
    finally:
        process.terminate()
        try:
            code = process.wait(PATIENCE)
        finally:
            process.kill()
    assert seen == [{CORES[0]}, {CORES[1]}]
    assert busy == [{CORES[1]}]
    assert code == 143, "SIGTERM goes to the command, which saves its run and says so"


def test_a_core_that_is_not_there_is_refused() -> None:
    command = [sys.executable, str(EXAMPLE / "pinned.py"), "--watch", "study", "--busy", "999", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (2, f"--busy: there is no core 999; give 0 to {len(CORES) - 1}.\n")


def test_every_condition_has_the_same_effective_batch() -> None:
    for setting in ASKED:
        options = from_mapping(TrainOptions, setting.options, setting.condition)
        pushes = options.workers if options.sync_mode == "sync" else options.accumulate
        assert pushes * options.mini_batch_words == 2048, setting.condition


def test_the_readme_is_made_from_the_results_beside_it() -> None:
    results, claims = study_results(EXAMPLE / "results", ASKED), read_claims(EXAMPLE / "claims.yaml")
    assert {condition for claim in claims for condition in claim.conditions} <= {setting.condition for setting in ASKED}
    assert is_current((EXAMPLE / "README.md").read_text(encoding="utf-8"), results, claims, ASKED, DECLARED.against)
