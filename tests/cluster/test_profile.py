"""Cluster profiles: presets, files, and random amounts that depend on nothing but their number."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from nmt_async.cluster.profile import PRESETS, ClusterProfile, WorkerProfile, profile_for
from nmt_async.errors import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_back_from_its_file(name: str, tmp_path: Path) -> None:
    preset = profile_for(name, 5)
    (tmp_path / "profile.yaml").write_text(preset.dump())
    assert profile_for(str(tmp_path / "profile.yaml"), None) == preset
    assert profile_for(str(tmp_path / "profile.yaml"), 2).workers == preset.workers[:2]


def test_uneven_has_one_worker_at_half_speed() -> None:
    *others, last = profile_for("uneven", None).workers
    assert len(others) == 3
    assert {worker.computing(700, 0, 0, 0) < last.computing(700, 0, 0, 0) for worker in others} == {True}
    even = WorkerProfile(1000, 0.2).computing(700, 1, 2, 3)
    assert WorkerProfile(500, 0.4).computing(700, 1, 2, 3) == pytest.approx(2 * even)


def test_jitter_keeps_the_mean_and_has_its_width() -> None:
    worker = WorkerProfile(100.0, jitter=0.2)
    times = [worker.computing(100, 1, 0, number) for number in range(3000)]
    assert statistics.mean(times) == pytest.approx(1.0, rel=0.02)
    assert statistics.stdev(map(math.log, times)) == pytest.approx(0.2, rel=0.06)
    assert times[5] == worker.computing(100, 1, 0, 5) != worker.computing(100, 1, 1, 5)


def test_pauses_and_deaths_come_as_often_as_they_should() -> None:
    worker = WorkerProfile(100.0, pause_every=4.0, pause_seconds=2.0, failure_every=50.0)
    assert statistics.mean(worker.computing(100, 1, 0, n) for n in range(3000)) == pytest.approx(1.5, rel=0.05)
    assert statistics.mean(worker.lifetime(1, 0, n) for n in range(3000)) == pytest.approx(50.0, rel=0.06)
    assert WorkerProfile().lifetime(1, 0, 0) == math.inf


def test_a_transfer_costs_latency_and_bytes() -> None:
    assert WorkerProfile(latency=0.1, bytes_per_second=400.0).transfer(200) == pytest.approx(0.6)
    assert WorkerProfile(latency=0.1).transfer(50) == 0.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: []", "lists no workers"),
        ("name: x", "lists no workers"),
        ("workers: [{count: 2}]\nspeed: 3", "no key is called 'speed'"),
        ("workers: [{speed: 2}]", "no key is called 'speed'"),
        ("workers: [{count: 1.5}]", "count 1.5 is not a number of workers"),
        ("workers: [{count: 0}]", "count 0 is not"),
        ("workers: [3]", "3 is not a mapping"),
        ("workers: [{jitter: -1}]", "jitter -1 is not a number from 0 on"),
        ("workers: [{jitter: .nan}]", "jitter nan is not"),
        ("workers: [{tokens-per-second: 0}]", "tokens-per-second must be above 0"),
        ("workers: [{count: 2}]\nserver: {seconds-per-push: x}", "'x' is not a number"),
        ("[1, 2]", "one option a line"),
        ("workers: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        profile_for(str(tmp_path / "profile.yaml"), None)


def test_a_profile_of_fewer_workers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(ClusterProfile("p", (WorkerProfile(),) * 3).dump())
    with pytest.raises(UserError, match="describes 3 workers; give --workers 3 or fewer"):
        profile_for(str(tmp_path / "p.yaml"), 4)


def test_an_update_costs_what_its_step_multiplies_beyond_what_was_measured() -> None:
    workers = (WorkerProfile(tokens_per_second=100.0), WorkerProfile(tokens_per_second=200.0))
    profile = ClusterProfile("p", workers, seconds_per_update=0.5, operations_per_update=1000.0)
    # 4,000 more operations, or 1,000 fewer, at 20 a token and 200 tokens a second
    assert profile.update_seconds(5000, 20.0) == 0.5 + 4000 / (20 * 200)
    assert profile.update_seconds(0, 20.0) == 0.5 - 1000 / (20 * 200)
    assert profile.update_seconds(1000, 20.0) == profile.update_seconds(5000, 0.0) == 0.5
    assert replace(profile, seconds_per_update=0.1).update_seconds(0, 20.0) == 0.0


def test_a_profile_file_holds_the_operations_that_were_measured(tmp_path: Path) -> None:
    profile = ClusterProfile("measured", (WorkerProfile(),), 0.1, 0.2, operations_per_update=12345.0)
    profile.save(tmp_path / "profile.yaml")
    assert profile_for(str(tmp_path / "profile.yaml"), None) == profile
