"""What is done because a gradient is stale where nobody says it: options as they are settled, and runs that resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import run_small

from nmt_async.errors import UserError
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
    ({"delay_feedback": 1.0}, "none", 0.0),
    ({"sync_mode": "sync"}, "none", 0.0),
    ({"sync_mode": "sync", "weight_prediction": "none"}, "none", 0.0),
    ({"oldest_push": 0}, "none", 0.0),
    ({"max_staleness": 0}, "none", 0.0),
])  # fmt: skip
def test_workers_predict_where_pushes_are_stale_and_nothing_else_is_done_about_it(
    given: dict[str, Any], settled: str | None, ahead: float
) -> None:
    options = TrainOptions(**{"workers": 4, **given})
    staleness = options.rule().staleness(options.workers or 1)
    assert options.settled_prediction() == settled
    assert options.corrections().updates_ahead(staleness) == ahead


def test_a_run_goes_on_with_its_prediction_where_nobody_names_one(small_data: Path, tmp_path: Path) -> None:
    adaptive = {"cluster": "simulated", "sync_mode": "adaptive", "workers": 2}
    for name, mode, named in (
        ("hybrid", {"cluster": "simulated", "workers": 2}, "none"), ("adaptive", adaptive, "last-step")
    ):  # fmt: skip
        run_small(small_data, tmp_path / name, **mode, weight_prediction=named, stop_after="2")
        run_small(small_data, tmp_path / name, **mode, stop_after="3")
        assert read_options(tmp_path / name).weight_prediction == named, "which is not the default there"


def test_what_a_run_does_not_name_is_judged_by_what_it_is(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    dana = {"cluster": "simulated", "workers": 2, "momentum_lookahead": "dana"}
    with pytest.raises(UserError, match="--momentum-lookahead means nothing with --optimizer muon"):
        run_small(small_data, run, **dana, stop_after="2")
    assert not run.exists()
    run_small(small_data, run, **dana, optimizer="adam", stop_after="2")
    run_small(small_data, run, **dana, stop_after="3")
    assert read_options(run).optimizer == "adam"
