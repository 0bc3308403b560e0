"""Laws that a simulation of time obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile, profile_for
from nmt_async.cluster.task import Task
from nmt_async.planning.modes import Mode
from nmt_async.planning.simulation import NominalGradients, Prediction, even_plan, predict, predictions
from nmt_async.text.plan import BatchId, BatchPlan

TOKENS = 500


def predicted(mode: str, profile: ClusterProfile, batches: int = 8, sent: int = 1) -> Prediction:
    return predict(Mode(mode), profile, lambda pushes, parts: even_plan(TOKENS, pushes, parts), sent, batches)


def even(workers: int) -> ClusterProfile:
    return ClusterProfile("even", (WorkerProfile(1000.0),) * workers)


@given(speeds=st.lists(st.floats(100.0, 1000.0), min_size=1, max_size=6), mode=st.sampled_from(["async", "hybrid:3"]))
@settings(max_examples=8)
def test_when_nothing_else_costs_throughput_is_the_sum_of_speeds(speeds: list[float], mode: str) -> None:
    made = predicted(mode, ClusterProfile("p", tuple(map(WorkerProfile, speeds))))
    assert made.tokens_per_second == pytest.approx(sum(speeds), rel=0.02)
    assert made.waiting_share == pytest.approx(0.0, abs=1e-9)


@given(speeds=st.lists(st.floats(100.0, 1000.0), min_size=1, max_size=6), accumulate=st.integers(1, 3))
@settings(max_examples=8)
def test_sync_is_as_fast_as_its_slowest_worker(speeds: list[float], accumulate: int) -> None:
    made = predicted(f"sync:{accumulate}", ClusterProfile("p", tuple(map(WorkerProfile, speeds))))
    assert made.tokens_per_second == pytest.approx(len(speeds) * min(speeds))
    waits = [1 - min(speeds) / speed for speed in speeds]
    assert made.waiting_share == pytest.approx(sum(waits) / len(speeds), abs=0.01)
    assert (made.staleness_mean, made.staleness_max) == (0.0, 0)
    assert made.effective_batch == len(speeds) * accumulate * TOKENS


@given(workers=st.integers(1, 40), accumulate=st.integers(1, 12))
@settings(max_examples=8)
def test_staleness_of_even_workers_is_the_others_over_what_is_accumulated(workers: int, accumulate: int) -> None:
    made = predicted(f"hybrid:{accumulate}", even(workers))
    assert made.staleness_mean == pytest.approx((workers - 1) / accumulate, rel=0.03)
    assert made.effective_batch == accumulate * TOKENS


def test_the_server_is_the_bound_where_it_has_no_time_left() -> None:
    profile = ClusterProfile("p", (WorkerProfile(1000.0),) * 100, seconds_per_push=0.01, seconds_per_update=0.03)
    assert predicted("async", profile).tokens_per_second == pytest.approx(TOKENS / 0.04, rel=0.01)
    assert predicted("hybrid:5", profile).tokens_per_second == pytest.approx(5 * TOKENS / 0.08, rel=0.01)


def test_the_link_brings_the_nominal_gradient_and_local_sums_need_it_less_often() -> None:
    profile = ClusterProfile("p", (WorkerProfile(1000.0, bytes_per_second=8000.0),) * 2)
    made = predicted("async", profile, sent=1000)  # 0.5 seconds each way beside 0.5 of computing
    assert made.tokens_per_second == pytest.approx(2 * TOKENS / 1.5)
    assert made.waiting_share == pytest.approx(2 / 3)
    assert predicted("local:4", profile, sent=1000).waiting_share == pytest.approx(1 / 3)
    assert predicted("local:4", profile, sent=1000).effective_batch == 4 * TOKENS


def test_deaths_cost_their_restarts() -> None:
    dying = ClusterProfile("p", (WorkerProfile(1000.0, failure_every=20.0, restart_seconds=20.0),) * 8)
    assert predicted("async", dying, batches=300).tokens_per_second == pytest.approx(4000, rel=0.15)


def test_speed_up_is_over_the_profiles_first_worker_alone() -> None:
    made = predictions(
        [Mode("sync"), Mode("hybrid:W")], [1, 2, 4], lambda workers: profile_for("uneven", workers),
        lambda pushes, parts: even_plan(TOKENS, pushes, parts), 1, 8, 1,
    )  # fmt: skip
    assert [(each.mode, each.workers) for each in made] == [
        (mode, workers) for mode in ("sync", "hybrid:W") for workers in (1, 2, 4)
    ]
    assert [each.speedup for each in made[3:]] == pytest.approx([0.5, 1.5, 3.5], rel=0.03)
    assert made[2].speedup < 2.0, "three wait for the fourth"


def test_nominal_gradients_have_the_tokens_of_the_plans_batches() -> None:
    lengths = np.array([3, 9, 4, 7, 5, 2])
    plan = BatchPlan(2 * lengths, lengths, 9, 1, indexes=np.array([1, 3, 5, 7, 9, 11]), parts=2)
    gradients = NominalGradients(plan, 77)
    tasks = [plan.parts(BatchId(1, number)) for number in range(len(plan.epoch(1)))]
    computed = [gradients.compute(torch.zeros(1), torch.zeros(1), Task(BatchId(1, 0), parts, 0)) for parts in tasks]
    assert sum(each.tokens for each in computed) == lengths.sum()
    assert all(each.source_tokens == 2 * each.tokens for each in computed)
    assert (gradients.size, gradients.sent) == (1, 77)
    assert math.isfinite(computed[0].gradient_norm)
