"""A simulation agrees with pushes that were observed in a simulation of the same profile."""

from __future__ import annotations

import pytest

from nmt_async.bench.agreement import Compared, agreements
from nmt_async.cluster.handled import Handled
from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.planning.calibration import calibrated
from nmt_async.planning.nominal import even_plan
from nmt_async.planning.simulation import nominal_cluster
from nmt_async.sync.rules import Rule, rule_for

PROFILE = ClusterProfile(
    "given", (WorkerProfile(1000.0, jitter=0.1, latency=0.002), WorkerProfile(900.0, jitter=0.1)), 0.01, 0.02
)
RULES = {"hybrid": rule_for("hybrid", 2, 2), "sync": rule_for("sync", 2, 1), "async": rule_for("async", 2, 1)}


def sittings(rule: Rule) -> list[list[Handled]]:
    """Two of 300 pushes."""
    found = []
    for seed in (1, 2):
        seen: list[Handled] = []
        for _ in nominal_cluster(rule, PROFILE, even_plan(500, 50), 1, seed, seen.append).updates():
            if len(seen) >= 300:
                break
        found.append(seen)
    return found


def test_a_profile_of_hybrid_foretells_every_mode() -> None:
    seen = {name: sittings(rule) for name, rule in RULES.items()}
    for agreement in agreements(calibrated(seen["hybrid"], "found"), RULES, even_plan(500, 50), seen, 1):
        assert abs(agreement.tokens_per_second.error) < 0.03, agreement
        assert abs(agreement.waiting_share.error) < 0.1, agreement


def test_fewer_workers_are_the_first_ones() -> None:
    alone = [push for push in sittings(RULES["async"])[0] if push.worker == 0]
    (agreement,) = agreements(PROFILE, {"one": RULES["async"]}, even_plan(500, 50), {"one": [alone]}, 1)
    assert agreement.tokens_per_second.predicted == pytest.approx(500 / (0.5 + 0.004 + 0.03), rel=0.01)


def test_the_error_is_of_what_was_measured() -> None:
    assert Compared(1.1, 1.0).error == pytest.approx(0.1)
    assert Compared(0.0, 0.0).error == 0.0
    assert Compared(0.1, 0.0).error == float("inf")
