"""How the time after which a silent worker is replaced is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import small_options

from nmt_async.errors import UserError
from nmt_async.options import dump_yaml, from_mapping, load_yaml
from nmt_async.training.cluster_options import time_quantity
from nmt_async.training.options import TrainOptions


@pytest.mark.parametrize(
    ("typed", "seconds"), [("10min", 600), ("0.05min", 3), ("2h", 7200), ("0", 0), (" 0 ", 0), ("0min", 0)]
)
def test_it_counts_minutes_or_hours_and_comes_back_from_a_file(typed: str, seconds: float, tmp_path: Path) -> None:
    options = small_options(tmp_path, worker_timeout=time_quantity(typed))
    assert options.timeout_seconds == pytest.approx(seconds)
    (tmp_path / "config.yaml").write_text(dump_yaml(options))
    read = from_mapping(TrainOptions, load_yaml(tmp_path / "config.yaml"), "config.yaml")
    assert read.timeout_seconds == options.timeout_seconds


@pytest.mark.parametrize("typed", ["600", "3e", "soon", "-1min"])
def test_it_counts_nothing_else(typed: str) -> None:
    with pytest.raises(UserError):
        time_quantity(typed)
