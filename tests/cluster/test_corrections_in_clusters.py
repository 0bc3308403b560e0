"""Corrections of stale gradients in every cluster: runs go on bit-equal, lose nothing to deaths, and replay."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import kill_child, replayed, run_small, saved_state

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.sync import CorrectionSettings, Event, Hybrid
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.journal import effective

WORKERS = 3
UNEVEN = ClusterProfile(
    "uneven", tuple(WorkerProfile(1.0 / (1 + index), jitter=0.4, pause_every=90.0, pause_seconds=30.0, latency=1.0,
                                  failure_every=900.0, restart_seconds=20.0) for index in range(WORKERS)), 0.5, 2.0,
)  # fmt: skip
ALL = [
    CorrectionSettings("scale"), CorrectionSettings("decay"), CorrectionSettings("gap-aware"),
    CorrectionSettings("delay-compensated", compensation=1e3, adaptive=True), CorrectionSettings(feedback=1.0),
    CorrectionSettings("gap-aware", feedback=0.5), CorrectionSettings(prediction="last-step"),
    CorrectionSettings(momentum="dana"), CorrectionSettings(momentum="dana-slim"),
    CorrectionSettings("gap-aware", momentum="dana"),
]  # fmt: skip


def cluster_of(training, corrections: CorrectionSettings, accumulate: int, events: list[Event]) -> SimulatedCluster:
    coordinator = training.coordinator(Hybrid(accumulate), WORKERS, events=events, corrections=corrections)
    gradients = training.gradients(0.2)
    return SimulatedCluster(coordinator, gradients, UNEVEN, seed=3, form=gradients.worker.form)


def take(cluster: SimulatedCluster, count: int) -> list:
    return list(itertools.islice(cluster.updates(), count))


def called(corrections: CorrectionSettings | PushSettings) -> str:
    """By what is not as by default."""
    return " ".join(f"{field.name}={value}" for field in dataclasses.fields(corrections)
                    if (value := getattr(corrections, field.name)) != field.default)  # fmt: skip


COMPRESSED = PushSettings("bfloat16", 0.9)
SMALLER = [
    CorrectionSettings("gap-aware", momentum="dana"), CorrectionSettings("delay-compensated", compensation=1e3),
    CorrectionSettings("decay", feedback=0.5), CorrectionSettings(prediction="last-step"),
]  # fmt: skip
"""Those that are tried with pushes that leave something behind, too."""


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    ("corrections", "push"), [*((each, WHOLE) for each in ALL), *((each, COMPRESSED) for each in SMALLER)], ids=called
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_simulated_run_goes_on_bit_equal_and_replays(
    training, through_a_checkpoint, corrections: CorrectionSettings, push: PushSettings, accumulate: int, optimizer: str
) -> None:
    training = dataclasses.replace(training, optimizer=optimizer, push=push)
    whole = cluster_of(training, corrections, accumulate, [])
    updates = take(whole, 9)
    events: list[Event] = []
    cluster = cluster_of(training, corrections, accumulate, events)
    made = []
    for count in (1, 4, 4):
        made += take(cluster, count)
        states = through_a_checkpoint(cluster.coordinator.state()), through_a_checkpoint(cluster.state())
        take(cluster, 1)  # void: the run is killed before its next checkpoint
        cluster = cluster_of(training, corrections, accumulate, events)
        cluster.coordinator.restore(*states[0])
        cluster.restore(*states[1])
    assert made == updates
    assert take(cluster, 3) == take(whole, 3)
    assert_same_vectors(cluster.coordinator, whole.coordinator)
    assert_same_vectors(replayed_in(training, corrections, accumulate, events), cluster.coordinator)


def assert_same_vectors(one: Coordinator, other: Coordinator) -> None:
    vectors, others = one.server.state()[1], other.server.state()[1]
    assert vectors.keys() == others.keys()
    for name, vector in vectors.items():
        assert torch.equal(vector, others[name]), name


def replayed_in(training, corrections: CorrectionSettings, accumulate: int, events: list[Event]) -> Coordinator:
    def build(record, workers: int) -> Coordinator:
        coordinator = training.coordinator(Hybrid(accumulate), workers, corrections=corrections)
        return Coordinator(coordinator.server, coordinator.plan, record, [].append)

    replay = Replay(build, training.worker(0.2), training.data, WORKERS)
    replay.run(effective(events))
    return replay.coordinator


OPTIONS: list[dict[str, Any]] = [
    {"staleness_rule": "gap-aware"},
    {"staleness_rule": "delay-compensated", "adaptive_compensation": True, "weight_prediction": "last-step"},
    {"delay_feedback": 1.0, "optimizer": "muon"},
    {"momentum_lookahead": "dana", "optimizer": "sgd", "accumulate": 3, "sync_mode": "hybrid"},
    {"momentum_lookahead": "dana-slim", "staleness_rule": "scale", "optimizer": "adam"},
    {"momentum_lookahead": "dana", "optimizer": "sgd", "drop_gradients": 0.95, "local_gradients": True},
]
"""Those that remember something, of each kind."""


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_real_workers_may_die_and_the_run_go_on_with_fewer_and_its_journal_replays(
    small_data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    settings = {"sync_mode": "async", "workers": 3, **options}
    run_small(small_data, run, {5: lambda: kill_child("worker 1")}, **settings, stop_after="12")
    run_small(small_data, run, **settings, stop_after="20")
    run_small(small_data, run, **{**settings, "workers": 2}, stop_after="28")
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])
