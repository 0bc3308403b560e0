"""Workers and whole runs are killed at random in virtual time; `make soak` does the same a thousand times.

In gradients and parameters as in the journal: no batch is lost, none counts twice, and what pushes left behind is kept.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from moments import random_moments
from virtual_runs import MODES, PUSHES, WORKERS, VirtualRun

from nmt_async.sync.compression.settings import PushSettings


@pytest.mark.parametrize("push", PUSHES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_random_kills_in_virtual_time_lose_no_batch_and_double_none(
    mode: str, push: PushSettings, tmp_path: Path
) -> None:
    random, killed = random_moments(), 0
    for workers in random.sample(WORKERS, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        run = VirtualRun(folder, mode, workers, random, push)
        assert run.finish() == []
        killed += run.faults["worker killed"] + run.faults["run killed"]
    assert killed
