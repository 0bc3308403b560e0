"""A profile is recovered from the pushes of its own simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.task import Handled
from nmt_async.errors import RunFailure
from nmt_async.planning.calibration import calibrated, time_line
from nmt_async.planning.simulation import nominal_cluster
from nmt_async.sync.rules import rule_for
from nmt_async.text.plan import BatchPlan


def observed(profile: ClusterProfile, mode: str, accumulate: int, pushes: int) -> list[Handled]:
    """A simulation of batches of 100 to 1,000 tokens."""
    lengths = np.arange(100, 1001, 9)
    plan = BatchPlan(lengths, lengths, 1, seed=1)
    seen: list[Handled] = []
    rule = rule_for(mode, len(profile.workers), accumulate)
    cluster = nominal_cluster(rule, profile, plan, 1, observe=seen.append)
    for _ in itertools.takewhile(lambda _: len(seen) < pushes, cluster.updates()):
        pass
    return seen


workers = st.builds(
    WorkerProfile, tokens_per_second=st.floats(200, 2000), seconds_per_batch=st.floats(0.05, 0.5),
    jitter=st.floats(0.0, 0.1), latency=st.floats(0.0, 0.05),
)  # fmt: skip


@given(
    workers=st.lists(workers, min_size=1, max_size=3), push=st.floats(0.0, 0.01), update=st.floats(0.0, 0.05),
    mode=st.sampled_from([("sync", 2), ("hybrid", 3)]),
)  # fmt: skip
@settings(max_examples=8)
def test_a_profile_comes_back_from_its_simulation(
    workers: list[WorkerProfile], push: float, update: float, mode: tuple[str, int]
) -> None:
    profile = ClusterProfile("made", tuple(workers), push, update)
    found = calibrated([observed(profile, *mode, 400 * len(workers))], "made")
    assert found.seconds_per_push == pytest.approx(push, rel=1e-4, abs=1e-8)
    assert found.seconds_per_update == pytest.approx(update, rel=1e-4, abs=1e-8)
    for made, given_one in zip(found.workers, workers, strict=True):
        assert made.latency == pytest.approx(given_one.latency, rel=0.01, abs=1e-6)
        assert made.jitter == pytest.approx(given_one.jitter, rel=0.25, abs=1e-3)
        for tokens in (100, 1000):
            mean = made.seconds_per_batch + tokens / made.tokens_per_second
            assert mean == pytest.approx(given_one.seconds_per_batch + tokens / given_one.tokens_per_second, rel=0.06)


def test_batches_that_are_alike_tell_no_share_of_their_own() -> None:
    generator = np.random.default_rng(1)
    tokens = generator.integers(1990, 2010, 50).astype(float)
    seconds = tokens / 1000 * np.exp(0.1 * generator.standard_normal(50))
    assert time_line(tokens, seconds) == (0.0, seconds.sum() / tokens.sum())
    assert time_line(np.full(9, 7.0), np.arange(9.0)) == (0.0, 36 / 63)


def test_a_push_that_waits_for_another_is_not_taken_for_a_slow_link() -> None:
    profile = ClusterProfile("busy", (WorkerProfile(1000.0, latency=0.01),) * 6, seconds_per_push=0.05)
    found = calibrated([observed(profile, "async", 1, 600)], "busy")
    assert [worker.latency for worker in found.workers] == pytest.approx([0.01] * 6, abs=1e-6)


def test_a_machine_that_is_slow_for_a_while_has_no_more_jitter() -> None:
    fast = ClusterProfile("fast", (WorkerProfile(1000.0, jitter=0.1),) * 2)
    slow = ClusterProfile("slow", (WorkerProfile(600.0, jitter=0.1),) * 2)
    found = calibrated([observed(profile, "hybrid", 2, 300) for profile in (fast, slow)], "both")
    assert [worker.jitter for worker in found.workers] == pytest.approx([0.1] * 2, rel=0.2)


def test_the_first_push_of_a_sitting_does_not_count() -> None:
    profile = ClusterProfile("made", (WorkerProfile(1000.0, latency=0.01),), 0.001, 0.002)
    seen = observed(profile, "hybrid", 2, 40)
    found = calibrated([seen[:20], seen[20:]], "made")
    assert found.workers[0].tokens_per_second == pytest.approx(1000.0)
    assert found.workers[0].latency == pytest.approx(0.01)


def test_too_few_pushes_make_no_profile() -> None:
    seen = observed(ClusterProfile("made", (WorkerProfile(),)), "async", 1, 3)
    with pytest.raises(RunFailure, match="too few batches"):
        calibrated([seen], "made")


def test_where_every_push_is_an_update_the_two_are_told_apart() -> None:
    profile = ClusterProfile("made", (WorkerProfile(1000.0),) * 2, seconds_per_push=0.001, seconds_per_update=0.004)
    found = calibrated([observed(profile, "async", 1, 100)], "made")
    assert (found.seconds_per_push, found.seconds_per_update) == pytest.approx((0.001, 0.004))
