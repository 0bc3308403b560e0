"""What bench recommends: measured speed, and the study's price of a token."""

from __future__ import annotations

import pytest

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.planning.advice import PLAIN, WAYS, expected, recommendation

TOKENS = 500
EVEN = ClusterProfile("even", (WorkerProfile(10_000.0, jitter=0.1),) * 4, 0.0001, 0.0001)
UNEVEN = ClusterProfile("uneven", (*EVEN.workers[:3], WorkerProfile(5_000.0, jitter=0.1)), 0.0001, 0.0001)
CHEAP = {"muon": 1e9}


def test_it_is_what_comes_soonest_to_a_quality() -> None:
    ways = expected(EVEN, TOKENS, CHEAP, 1e7)
    assert [way.sooner for way in ways] == sorted((way.sooner for way in ways), reverse=True)
    assert {way.way for way in ways} == set(WAYS)
    assert recommendation(ways, 4).startswith(
        "Recommended here: --sync-mode hybrid --optimizer muon --accumulate 4 --weight-prediction last-step\n"
    )
    plain = next(way for way in ways if way.way is PLAIN)
    assert plain.sooner == 1.0
    for way in ways:
        assert way.sooner == pytest.approx(way.tokens_per_second / plain.tokens_per_second / way.way.price)


def test_uneven_workers_make_it_worth_more() -> None:
    assert expected(UNEVEN, TOKENS, CHEAP, 1e7)[0].sooner > 1.3 * expected(EVEN, TOKENS, CHEAP, 1e7)[0].sooner


def test_a_step_that_holds_up_all_workers_is_not_recommended() -> None:
    dear = {"muon": 1e7 * 10_000 * 2.0}  # two seconds of a worker, where an update's pushes come in 0.05
    ways = expected(EVEN, TOKENS, dear, 1e7)
    assert ways[0].way is PLAIN
    assert "No other way" in recommendation(ways, 4)
    muon = next(way for way in ways if way.way.optimizer == "muon")
    assert muon.step_share > 0.9


def test_it_says_why() -> None:
    said = recommendation(expected(UNEVEN, TOKENS, CHEAP, 1e7), 4)
    assert "times sooner than synchronous Adam" in said
    assert "of their time" in said
    assert "The optimizer's step takes" in said


def test_one_worker_waits_for_nobody() -> None:
    ways = expected(ClusterProfile("one", EVEN.workers[:1], 0.0001, 0.0001), TOKENS, CHEAP, 1e7)
    assert {way.way.mode for way in ways} == {"sync"}
    assert recommendation(ways, 1).startswith("Recommended here: --sync-mode sync --optimizer muon\n")
