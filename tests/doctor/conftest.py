from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_runs import run_small


@pytest.fixture(scope="session")
def ended_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates by virtual workers, with checkpoints and a best model; not to be changed."""
    run = tmp_path_factory.mktemp("ended") / "run"
    run_small(small_data, run, cluster="simulated", workers=2, save_freq="2", valid_freq="3", stop_after="6")
    assert len(list((run / "checkpoints").glob("step-*"))) == 2
    return run


@pytest.fixture
def run(ended_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(ended_run, tmp_path / "run")


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the prepared data."""
    return shutil.copytree(small_data, tmp_path / "data")
