"""Real workers are killed at random moments in every way; `make soak` does the same by the hour, and worse."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from moments import random_moments
from training_runs import assert_each_batch_counted, children_named, replayed, run_small, saved_state
from watched import INJECTED

from nmt_async.process import fork_server

MODES = [
    {"sync_mode": "sync"}, {"sync_mode": "sync", "accumulate": 2}, {"sync_mode": "async"},
    {"sync_mode": "hybrid", "accumulate": 3}, {"sync_mode": "async", "local_accumulate": 2},
    {"sync_mode": "async", "oldest_push": 0, "older_pushes": "restart"}, {"sync_mode": "hybrid", "max_staleness": 1},
    {"sync_mode": "sync", "fastest": 1, "older_pushes": "restart"}, {"sync_mode": "adaptive", "oldest_push": 1},
    {"sync_mode": "sync", "accumulate": 3, "balance": True},
    {"sync_mode": "async", "optimizer": "adam", "weight_prediction": "none"},
    {"sync_mode": "hybrid", "accumulate": 3, "weight_prediction": "none"},
]  # fmt: skip
EPOCHS = 3


def worker_ids() -> list[int]:
    return [child.pid for child in children_named("worker")]


def strike(random: Random, number: signal.Signals, everyone: bool) -> Callable[[], None]:
    """Kills a worker or all of them, a moment later: in the middle of whatever they are at then."""

    def kill() -> None:
        workers = worker_ids()
        for pid in workers if everyone else random.sample(workers, min(1, len(workers))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return threading.Timer(random.random() / 10, kill).start


def test_random_kills_of_real_workers_lose_no_batch_and_double_none(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, run = random_moments(), tmp_path / "run"
    monkeypatch.setenv("PYTHONPATH", str(INJECTED))  # where SIGUSR2 becomes an exception
    fork_server.close()  # the next one reads that
    mode = random.choice(MODES)
    ways = [(signal.SIGKILL, True), (signal.SIGKILL, False), (random.choice((signal.SIGSEGV, signal.SIGUSR2)), False)]
    updates = random.sample(range(1, 8), len(ways))
    acts = {update: strike(random, *way) for update, way in zip(updates, ways, strict=True)}
    try:
        witness = run_small(small_data, run, acts, **mode, stop_after=f"{EPOCHS}e")
    finally:
        fork_server.close()
    deaths = [warning for warning in witness.warnings if "a new one takes its place" in warning]
    assert len(deaths) >= 2
    for death in deaths:
        assert re.match(
            r"worker \d died (at batch \d+ of epoch \d|before it had a batch|while it waited for a batch|"
            r"at a batch that it was told to leave) "
            r"\((killed by signal (9; out of memory\?|11, SIGSEGV|12, SIGUSR2)|"
            r"RuntimeError: injected from outside|exit code 1)\)", death
        )  # fmt: skip
    assert_each_batch_counted(run, small_data, EPOCHS)
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
