"""Workers are killed at random moments, some or all at once: nothing is lost, counted twice or torn."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest
from moments import random_moments
from striking import assert_whole, deaths, pid_of, send
from training_runs import run_small, until

from nmt_async.process import watchdog

WORKERS = 2
KILLERS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
MODES = (
    {"sync_mode": "sync"}, {"sync_mode": "async"}, {"sync_mode": "hybrid", "accumulate": 2},
    {"sync_mode": "hybrid", "accumulate": 2, "optimizer": "adam", "weight_prediction": "none"},
)  # fmt: skip


def test_workers_killed_at_random_moments_lose_no_batch(training_data: Path, tmp_path: Path) -> None:
    moments = random_moments()
    mode = moments.choice(MODES)
    struck: dict[int, tuple[int, set[int]]] = {}
    timers: list[threading.Timer] = []

    def strike() -> None:
        everybody = range(WORKERS)
        chosen = moments.sample(everybody, moments.randint(1, WORKERS)) if struck else everybody
        for worker in chosen:
            killer = moments.choice(KILLERS)
            if pid := send(worker, killer):  # perhaps one that is dying already
                struck.setdefault(pid, (worker, set()))[1].add(killer)

    def strike_soon() -> None:
        timers.append(threading.Timer(moments.random() * 0.1, strike))
        timers[-1].start()

    acts = {4 * number + moments.randint(0, 2): strike_soon for number in (1, 2, 3)}
    witness = run_small(training_data, tmp_path / "run", acts, **mode, workers=WORKERS, stop_after="2e")
    for timer in timers:
        timer.join()
    assert len(timers) == 3
    assert_whole(tmp_path / "run", training_data, 2)
    where = r"(?:at batch \d+ of epoch \d|before it had a batch|while it waited for a batch)"
    found = [re.match(rf"worker (\d) died {where} \(killed by signal (\d+)", death) for death in deaths(witness)]
    told = sorted((int(match[1]), int(match[2])) for match in found if match)
    assert [worker for worker, _ in told] == sorted(worker for worker, _ in struck.values())
    assert all(
        any(worker == other and number in killers for other, killers in struck.values()) for worker, number in told
    )


def test_a_crash_of_native_code_leaves_its_python_stack_in_the_log(training_data: Path, tmp_path: Path) -> None:
    acts = {3: lambda: send(0, signal.SIGSEGV)}
    witness = run_small(training_data, tmp_path / "run", acts, workers=1, stop_after="1e")
    assert_whole(tmp_path / "run", training_data, 1)
    (death,) = deaths(witness)
    assert re.match(r"worker 0 died at batch \d+ of epoch 1 \(killed by signal 11, SIGSEGV\);", death)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert re.search(r'File ".*worker.py", line \d+ in run_worker', log)


def test_when_what_workers_are_forked_from_is_killed_others_take_their_places(
    training_data: Path, tmp_path: Path
) -> None:
    def kill() -> None:
        worker = pid_of(0)
        assert worker is not None
        os.kill(os.getpgid(worker), signal.SIGKILL)

    witness = run_small(training_data, tmp_path / "run", {3: kill}, workers=WORKERS, sync_mode="async", stop_after="1e")
    assert_whole(tmp_path / "run", training_data, 1)
    assert sorted(death[: len("worker 0")] for death in deaths(witness)) == ["worker 0", "worker 1"]


def test_a_worker_that_dies_while_it_waits_is_said_to(
    training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 1.0)
    run = tmp_path / "run"

    def kill() -> None:
        until(lambda: "others wait for it" in (run / "train.log").read_text(), "worker 0 to wait for the other")
        send(0, signal.SIGKILL)
        until(lambda: "worker 0 died" in (run / "train.log").read_text(), "its death")
        send(1, signal.SIGCONT)

    killer = threading.Thread(target=kill)
    acts = {3: lambda: (send(1, signal.SIGSTOP), killer.start())}
    witness = run_small(training_data, run, acts, sync_mode="sync", workers=WORKERS, stop_after="1e")
    killer.join()
    assert_whole(run, training_data, 1)
    assert deaths(witness)[0] == (
        "worker 0 died while it waited for a batch (killed by signal 9; out of memory?); a new one takes its place."
    )
