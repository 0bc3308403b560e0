"""Simulated machines: how long what they do takes, and that no batch is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nmt_async.cluster.profile import ClusterProfile, LinkProfile, WorkerProfile
from nmt_async.cluster.simulated_machines import SimulatedMachines
from nmt_async.planning.simulation import even_plan, nominal_machines
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import LAGGED, LOCAL, SYNC, WAYS, Way
from nmt_async.sync.rules import rule_for
from nmt_async.sync.rules.rule import Waiting

TOKENS, SIZE = 1000, 1_000_000
EVEN = WorkerProfile(tokens_per_second=10_000.0)
"""A batch takes 0.1 seconds."""


def profile(workers: int, exchange: float, machines: int) -> ClusterProfile:
    """Equal workers, and a link on which an exchange of so many machines takes so many seconds."""
    bytes_per_second = 4 * SIZE * 2 * (machines - 1) / machines / exchange if exchange else 0.0
    return ClusterProfile("even", (EVEN,) * workers, between=LinkProfile(0.0, bytes_per_second))


def machines_of(
    mode: str,
    way: Way,
    machines: int,
    of: ClusterProfile,
    batches: int = 10_000,
    epochs: int | None = None,
    outer: OuterSettings | None = None,
) -> SimulatedMachines:
    name, _, count = mode.partition(":")
    rule = rule_for(name, len(of.workers) // machines, int(count) if count else None)
    return nominal_machines(rule, way, machines, of, even_plan(TOKENS, batches), SIZE, last_epoch=epochs, outer=outer)


def throughput(simulated: SimulatedMachines, updates: int = 100, beginning: int = 10) -> float:
    """Target tokens a second of all machines, after the first updates."""
    tokens, begin = 0, 0.0
    for number, update in enumerate(simulated.updates(), start=1):
        assert update is not None
        if number == beginning:
            begin = simulated.time
        elif number > beginning:
            tokens += update.tokens
        if number == updates:
            break
    return tokens / (simulated.time - begin)


def test_an_exchange_takes_as_long_as_a_ring_needs() -> None:
    link = LinkProfile(latency=0.001, bytes_per_second=1e6)
    assert link.exchange(10**6, 1) == 0
    assert link.exchange(10**6, 2) == pytest.approx(4 * 0.001 + 1.0)
    assert link.exchange(10**6, 4) == pytest.approx(12 * 0.001 + 1.5)
    assert LinkProfile().exchange(10**9, 8) == 0


@pytest.mark.parametrize("asked", [1, 7])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_each_machine_tells_what_its_workers_did_whenever_reports_ask_too(way: Way, asked: int) -> None:
    """Of two workers, two seconds go by in a second; the second machine computes half of the time that the first does.

    Reports ask after every update or after every seventh, and nothing is lost or told twice by that.
    """
    slow, fast = replace(EVEN, tokens_per_second=5_000.0), EVEN
    of = replace(profile(4, 0.05, 2), workers=(slow, slow, fast, fast))
    mode = "sync" if way is SYNC else "hybrid:2"
    simulated = machines_of(mode, way, 2, of)
    computing, waiting = [0.0, 0.0], [0.0, 0.0]
    for number, update in enumerate(simulated.updates(), start=1):
        assert update is not None
        for rank, (computed, waited) in enumerate(simulated.machines[0].take_spent()):
            computing[rank] += computed
            waiting[rank] += waited
        if not number % asked:
            simulated.waiting_shares()
        if number == 60:
            break
    for rank in (0, 1):
        assert computing[rank] + waiting[rank] == pytest.approx(2 * simulated.time, rel=0.05)
    shares = [waiting[rank] / (computing[rank] + waiting[rank]) for rank in (0, 1)]
    if way is LAGGED:
        assert shares == pytest.approx([0.0, 0.0], abs=0.01)
    else:
        assert computing[1] == pytest.approx(computing[0] / 2, rel=0.05)
        assert shares[0] < 0.35 < 0.49 < shares[1]


@pytest.mark.parametrize("machines", [2, 3])
def test_in_sync_everybody_waits_for_each_exchange(machines: int) -> None:
    """A round of 0.1 seconds and an exchange of half as long: two thirds of the throughput."""
    rate = throughput(machines_of("sync", SYNC, machines, profile(2 * machines, 0.05, machines)))
    assert rate == pytest.approx(2 * machines * TOKENS / 0.15)


def test_lagged_machines_do_not_wait_for_an_exchange_shorter_than_a_round() -> None:
    rate = throughput(machines_of("hybrid:2", LAGGED, 2, profile(4, 0.05, 2)))
    assert rate == pytest.approx(4 * TOKENS / 0.1, rel=0.02)


def test_lagged_machines_sum_more_while_an_exchange_takes_longer_than_a_round() -> None:
    """The workers of a machine never wait: the next contribution has whatever came together meanwhile."""
    simulated = machines_of("hybrid:2", LAGGED, 2, profile(4, 0.25, 2))
    assert throughput(simulated) == pytest.approx(4 * TOKENS / 0.1, rel=0.02)


def test_a_slow_machine_holds_up_the_others_in_sync_only() -> None:
    """One of two machines takes three times as long."""
    slow = replace(EVEN, tokens_per_second=EVEN.tokens_per_second / 3)
    uneven = ClusterProfile("uneven", (EVEN, EVEN, slow, slow))
    assert throughput(machines_of("sync", SYNC, 2, uneven)) == pytest.approx(4 * TOKENS / 0.3)
    lagged = throughput(machines_of("hybrid:2", LAGGED, 2, uneven), updates=300)
    assert lagged == pytest.approx(2 * TOKENS / 0.1 + 2 * TOKENS / 0.3, rel=0.02)


def test_fragments_are_exchanged_while_nobody_waits() -> None:
    """All of it takes 0.2 seconds after two updates of 0.1; a half takes 0.1 while the next update is made."""
    of = profile(4, 0.2, 2)
    whole = throughput(machines_of("hybrid:2", LOCAL, 2, of, outer=OuterSettings(2)))
    assert whole == pytest.approx(4 * TOKENS / 0.2, rel=0.02)
    halves = throughput(machines_of("hybrid:2", LOCAL, 2, of, outer=OuterSettings(2, fragments=2)))
    assert halves == pytest.approx(4 * TOKENS / 0.1, rel=0.05)


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("mode", ["hybrid:2", "async"])
def test_workers_restart_where_a_machine_s_own_update_made_them_too_old(mode: str, fragments: int) -> None:
    """Whoever makes that update: a push, a worker that asks for a task, or a contribution."""
    slow = replace(EVEN, tokens_per_second=EVEN.tokens_per_second / 7)
    uneven = ClusterProfile("uneven", (EVEN, EVEN, slow, EVEN, slow, EVEN), between=LinkProfile(0.0, 4 * SIZE / 0.3))
    name, _, count = mode.partition(":")
    waiting = Waiting(oldest_push=1, older_pushes="restart")
    rule = rule_for(name, 3, int(count) if count else None, waiting)
    outer = OuterSettings(4, fragments=fragments)
    simulated = nominal_machines(rule, LOCAL, 2, uneven, even_plan(TOKENS, 400), SIZE, last_epoch=1, outer=outer)
    batches = [push.batch for update in simulated.updates() if update is not None for push in update.pushes]
    assert sorted(batches) == [(1, number) for number in range(400)]


def test_half_the_bits_take_half_the_time() -> None:
    rate = throughput(machines_of("hybrid:2", LOCAL, 2, profile(4, 0.2, 2), outer=OuterSettings(2, dtype="bfloat16")))
    assert rate == pytest.approx(4 * TOKENS * 2 / 0.3, rel=0.02)


def test_no_machine_is_more_than_a_round_ahead() -> None:
    """Of a fragment whose exchange takes ten updates long, one more round is computed meanwhile."""
    rate = throughput(machines_of("hybrid:2", LOCAL, 2, profile(4, 2.0, 2), outer=OuterSettings(2, fragments=2)))
    assert rate == pytest.approx(4 * TOKENS / 1.0, rel=0.05)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mode", ["hybrid:2", "hybrid:3", "async"])
def test_a_finite_stream_comes_to_its_end_everywhere(way: Way, mode: str) -> None:
    simulated = machines_of(mode, way, 3, profile(6, 0.04, 3), batches=50, epochs=1)
    batches = [push.batch for update in simulated.updates() if update is not None for push in update.pushes]
    assert sorted(batches) == [(1, number) for number in range(50)]
    versions = {machine.server.version for machine in simulated.machines}
    assert len(versions) == 1
    first = simulated.machines[0].server.parameters
    assert all(torch.equal(machine.server.parameters, first) for machine in simulated.machines)
