"""What is done because a gradient is stale where nobody says it: options as they are settled, and runs that resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import run_small

from nmt_async.training.options import TrainOptions
from nmt_async.training.run_folder import read_options


@pytest.mark.parametrize(("given", "settled", "ahead"), [
    ({}, "last-step", 1.0),
    ({"sync_mode": "async"}, "last-step", 3.0),
    ({"sync_mode": "hybrid", "optimizer": "adam"}, "last-step", 1.0),
    ({"sync_mode": "adaptive"}, "none", 0.0),
    ({"workers": 1}, "last-step", 0.0),
    ({"prediction_updates": 0.5}, "last-step", 0.5),
    ({"weight_prediction": "none"}, "none", 0.0),
    ({"staleness_rule": "scale"}, "none", 0.0),
    ({"staleness_rule": "scale", "weight_prediction": "last-step"}, "last-step", 1.0),
    ({"momentum_lookahead": "dana", "optimizer": "adam"}, "none", 0.0),
    ({"delay_feedback": 1.0}, None, 0.0),
    ({"sync_mode": "sync"}, None, 0.0),
    ({"oldest_push": 0}, None, 0.0),
    ({"max_staleness": 0}, None, 0.0),
])  # fmt: skip
def test_workers_predict_where_pushes_are_stale_and_nothing_else_is_done_about_it(
    given: dict[str, Any], settled: str | None, ahead: float
) -> None:
    options = TrainOptions(**{"workers": 4, **given})
    staleness = options.rule().staleness(options.workers or 1)
    assert options.settled_prediction() == settled
    assert options.corrections().updates_ahead(staleness) == ahead


def test_a_run_goes_on_with_its_prediction_where_nobody_names_one(small_data: Path, tmp_path: Path) -> None:
    for name, given in {"by default": {}, "none": {"weight_prediction": "none"}}.items():
        settings = {"cluster": "simulated", "workers": 2, **given}
        run_small(small_data, tmp_path / name, **settings, stop_after="2")
        run_small(small_data, tmp_path / name, cluster="simulated", workers=2, stop_after="3")
    assert read_options(tmp_path / "by default").weight_prediction == "last-step"
    assert read_options(tmp_path / "none").weight_prediction == "none"


def test_a_run_of_one_worker_predicts_when_a_second_one_comes(small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", workers=1, accumulate=2, stop_after="2")
    said = run_small(small_data, tmp_path / "run", workers=2, accumulate=2, stop_after="4").said
    assert "workers compute on parameters predicted 1 update ahead" in said
