"""Where a way of updating wins in time follows from what it costs in tokens and from the slowest worker."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import condition

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.errors import UserError
from nmt_async.planning.simulation import uneven
from nmt_async.report.document_tables import SPEEDS, predicted_speed, winning_table
from nmt_async.study.conditions import Condition

WORKERS = 4
STEADY = ClusterProfile("steady", (WorkerProfile(tokens_per_second=1000.0, seconds_per_batch=0.1),) * WORKERS)
"""Without jitter, and with a server that costs nothing: times are arithmetic."""


def of(name: str, profile: Path, *offsets: float, **options: object) -> Condition:
    """A made-up condition that trains with these options on this profile, and stands beside sync."""
    made_up = condition(name, *offsets)
    wanted = {"mini-batch-words": 500, "profile": str(profile), **options}
    return replace(
        made_up,
        results=tuple(replace(each, setting=replace(each.setting, options=wanted)) for each in made_up.results),
        against="sync" if name != "sync" else "",
    )


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    STEADY.save(tmp_path / "steady.yaml")
    return tmp_path / "steady.yaml"


def test_the_first_worker_takes_longer_for_everything_it_computes() -> None:
    first, *others = uneven(STEADY, 0.5).workers
    assert first.computing(500, 1, 0, 0) == pytest.approx(2 * STEADY.workers[0].computing(500, 1, 0, 0))
    assert others == list(STEADY.workers[1:])


def test_sync_is_as_fast_as_its_slowest_worker_and_hybrid_as_all_together(profile: Path) -> None:
    sync = of("sync", profile, **{"sync-mode": "sync"})
    hybrid = of("hybrid:4", profile, **{"sync-mode": "hybrid", "accumulate": 4})
    alone = 500 / 0.6
    for speed in SPEEDS:
        assert predicted_speed(sync, speed) == pytest.approx(WORKERS * speed * alone, rel=0.01)
        assert predicted_speed(hybrid, speed) == pytest.approx((WORKERS - 1 + speed) * alone, rel=0.02)


def test_what_it_costs_in_tokens_is_taken_off_what_it_gains_in_speed(profile: Path) -> None:
    sync = of("sync", profile, 0.0, 0.01, **{"sync-mode": "sync"})
    hybrid = of("hybrid:4", profile, 0.1, 0.11, **{"sync-mode": "hybrid", "accumulate": 4})
    table = winning_table([sync, hybrid], {"sync": sync, "hybrid:4": hybrid})
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert head[2:] == [f"slowest at {speed:.0%}".replace("%", " %") for speed in (1, 0.9, 0.75, 0.5, 0.25)]
    values = [float(re.findall(r"[0-9.]+", cell)[0]) for cell in row[1:]]
    price, *sooner = values
    assert price > 1.05
    expected = [(WORKERS - 1 + speed) / WORKERS / speed / price for speed in SPEEDS]
    assert sooner == pytest.approx(expected, rel=0.03)
    assert [cell.startswith("**") for cell in row[2:]] == [False, False, False, True, True]
    one = [replace(each, results=each.results[:1]) for each in (sync, hybrid)]
    table = winning_table(one, {each.name: each for each in one})
    assert "| 2.62 |" in table
    assert "**" not in table, "one seed decides nothing"


def test_where_one_never_comes_to_the_quality_there_is_no_ratio(profile: Path) -> None:
    sync = of("sync", profile, 0.0, **{"sync-mode": "sync"})
    hybrid = of("hybrid:4", profile, 0.0, **{"sync-mode": "hybrid", "accumulate": 4})
    lost = replace(hybrid, results=tuple(replace(each, diverged="not finite") for each in hybrid.results))
    conditions = {"sync": sync, "hybrid:4": lost}
    assert winning_table([lost], conditions).count("| not reached") == 1 + len(SPEEDS)
    won = {"sync": replace(sync, results=tuple(replace(each, diverged="not finite") for each in sync.results))}
    assert winning_table([hybrid], {**won, "hybrid:4": hybrid}).count("the other did not reach it") == 1 + len(SPEEDS)


def test_a_mode_without_a_count_sums_twice_as_many_pushes_as_there_are_workers(profile: Path) -> None:
    assert of("hybrid", profile, **{"sync-mode": "hybrid"}).results[0].setting.mode == "hybrid"
    speeds = [
        predicted_speed(of("hybrid", profile, **{"sync-mode": "hybrid", **count}), 0.5)
        for count in ({}, {"accumulate": 8}, {"accumulate": 8, "local-accumulate": 2})
    ]
    assert speeds[0] == speeds[1]
    assert speeds[2] == pytest.approx(speeds[1], rel=0.2)


def test_only_equal_workers_of_a_simulated_cluster_are_on_the_map(profile: Path) -> None:
    condition_of = of("hybrid:4", profile, **{"sync-mode": "hybrid"})
    real = replace(condition_of, results=tuple(replace(each, cluster="processes") for each in condition_of.results))
    with pytest.raises(UserError, match="not run on a simulated cluster"):
        predicted_speed(real, 1.0)
    uneven(STEADY, 0.5).save(profile)
    with pytest.raises(UserError, match="uneven workers already"):
        predicted_speed(of("hybrid:4", profile, **{"sync-mode": "hybrid"}), 1.0)


def test_without_a_baseline_there_is_nothing_to_win_over() -> None:
    assert winning_table([condition("hybrid:4")], {}) == "No condition here has a baseline."
