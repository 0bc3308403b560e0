"""What ``simulate`` is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.errors import UserError
from nmt_async.planning.options import SimulateOptions
from nmt_async.text.plan import BatchId


@pytest.fixture
def pair(tmp_path: Path) -> str:
    workers = (WorkerProfile(100.0), WorkerProfile(50.0))
    (tmp_path / "pair.yaml").write_text(ClusterProfile("pair", workers).dump())
    return str(tmp_path / "pair.yaml")


def test_a_model_is_as_large_as_it_says_or_as_its_preset_is() -> None:
    assert SimulateOptions(model_size="60M").sent() == 60_000_000
    assert SimulateOptions(model_size="1.5k").sent() == 1500
    # 6 layers of 4 d^2 + 8 d^2 and of 8 d^2 + 8 d^2, one matrix of 32,000 rows; biases and norms beside
    assert SimulateOptions().sent() == pytest.approx((6 * 28 * 512 + 32_000) * 512, rel=0.01)


def test_with_data_batches_are_those_of_its_pairs(small_data: Path) -> None:
    plan = SimulateOptions(data=small_data, mini_batch_words=200, max_length=9).plans()(1000, 1)
    assert 0 < len(plan.target_lengths) < 600
    assert max(plan.target_lengths) <= 9
    assert SimulateOptions(mini_batch_words=200).plans()(50, 2).parts(BatchId(1, 3))[1].shape == (1,)
    assert np.all(SimulateOptions(mini_batch_words=200).plans()(50, 2).target_lengths == 200)
    assert SimulateOptions(data=small_data, model_size="tiny").sent() < SimulateOptions(model_size="tiny").sent()
    with pytest.raises(UserError, match="--max-length 1: no training pair"):
        SimulateOptions(data=small_data, max_length=1).plans()


def test_workers_of_a_file_come_again_where_that_is_asked_for(pair: str) -> None:
    speeds = [each.tokens_per_second for each in SimulateOptions(profile=pair, repeat=True).cluster_profile(5).workers]
    assert speeds == [100, 50, 100, 50, 100]
    assert len(SimulateOptions(profile=pair, workers="1,2").cluster_profile(1).workers) == 1
    with pytest.raises(UserError, match="describes 2 workers; give --workers 2 or fewer, or --repeat"):
        SimulateOptions(profile=pair, workers="3")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"profile": "nosuch"}, "'nosuch' is neither a file nor one of"),
        ({"mini_batch_words": 0}, "--mini-batch-words: 0 is too small"),
        ({"batches": 0}, "--batches: 0 is too small"),
        ({"seed": -1}, "--seed: -1"),
        ({"repeat": True}, "--repeat is for a profile's file"),
        ({"model_size": "huge"}, "--model-size: 'huge' is neither"),
        ({"model_size": "0"}, "--model-size: '0' is neither"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SimulateOptions(**values)  # type: ignore[arg-type]
