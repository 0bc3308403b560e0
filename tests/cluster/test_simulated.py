"""The simulated cluster: virtual workers, one clock, real gradients."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from small_rules import Never, Patient, PutOff

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.errors import RunFailure
from nmt_async.sync.compression.settings import WHOLE, LocalGradients, PushSettings
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.rules import Adaptive, Asynchronous, Hybrid, Synchronous, Waiting, rule_for

MODES = [
    ("sync", 3, 1), ("sync", 2, 2), ("async", 3, 1), ("hybrid", 3, 4), (PutOff(1, bound=1), 3, 1),
    (Patient(2, bound=2), 3, 1),
    (Hybrid(1, oldest_push=1), 3, 1), (Hybrid(2, oldest_push=0), 3, 1),
    (Hybrid(1, oldest_push=1, restart=True), 3, 1), (Hybrid(2, oldest_push=0, restart=True), 3, 1),
    (Synchronous(3, 2, fastest=4), 3, 1), (Synchronous(3, 1, fastest=2, restart=True), 3, 1),
    (Synchronous(3, 2, balance=True), 3, 1), (Synchronous(3, 2, fastest=5, balance=True), 3, 1),
    (Adaptive(3), 3, 1), (Adaptive(3, 2), 3, 1), (Adaptive(2, 1, oldest_push=1, restart=True), 3, 1),
    (Hybrid(2, max_staleness=1), 3, 1), (Hybrid(3, max_staleness=0), 3, 1), (Asynchronous(max_staleness=2), 3, 1),
]  # fmt: skip


def lasting(*seconds: float) -> ClusterProfile:
    """Each worker needs so many seconds for every batch."""
    workers = tuple(WorkerProfile(math.inf, each) for each in seconds)
    return ClusterProfile("lasting", workers)


SECOND = lasting(1.0, 1.0, 1.0, 1.0)
UNEVEN = ClusterProfile(
    "uneven", tuple(WorkerProfile(1.0 / (1 + index), jitter=0.4, pause_every=90.0, pause_seconds=30.0, latency=1.0,
                                  failure_every=900.0, restart_seconds=20.0) for index in range(4)), 0.5, 2.0,
)  # fmt: skip
"""Everything differs, happens and costs something."""
JITTERED = ClusterProfile("jittered", tuple(WorkerProfile(1.0 / (1 + index), jitter=0.4) for index in range(4)))


def cluster_of(training, mode, workers, accumulate=1, profile=SECOND, epochs=None, events=None) -> SimulatedCluster:
    coordinator = training.coordinator(mode, workers, accumulate, epochs, events)
    gradients = training.gradients(0.2)
    profile = replace(profile, workers=profile.workers[:workers])
    return SimulatedCluster(coordinator, gradients, profile, seed=3, form=gradients.worker.form)


def take(cluster: SimulatedCluster, count: int) -> list:
    return list(itertools.islice(cluster.updates(), count))


@pytest.mark.parametrize(("mode", "workers", "accumulate"), MODES)
def test_the_same_settings_give_the_same_run(training, mode: str, workers: int, accumulate: int) -> None:
    runs = []
    for _ in range(2):
        cluster = cluster_of(training, mode, workers, accumulate, UNEVEN)
        runs.append((take(cluster, 8), cluster.time, cluster.coordinator.server.parameters))
    assert runs[0][:2] == runs[1][:2]
    assert torch.equal(runs[0][2], runs[1][2])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_even_workers_of_async_are_as_stale_as_there_are_others(training, workers: int) -> None:
    updates = take(cluster_of(training, "async", workers), 20)
    assert [update.staleness for update in updates[workers:]] == [(workers - 1,)] * (20 - workers)


@pytest.mark.parametrize(("workers", "accumulate"), [(1, 3), (4, 4), (4, 2), (3, 6)])
def test_in_hybrid_staleness_is_divided_by_what_is_accumulated(training, workers: int, accumulate: int) -> None:
    updates = take(cluster_of(training, "hybrid", workers, accumulate), 12)
    ages = [age for update in updates[4:] for age in update.staleness]
    assert sum(ages) / len(ages) == pytest.approx((workers - 1) / accumulate)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_sync_nothing_is_stale_and_the_fast_wait_for_the_slow(training, accumulate: int) -> None:
    cluster = cluster_of(training, "sync", 2, accumulate, lasting(1.0, 4.0))
    updates = take(cluster, 5)
    assert {age for update in updates for age in update.staleness} == {0}
    assert cluster.time == 5 * 4.0 * accumulate
    # What the first worker has waited after the latest round is counted when it begins the next.
    assert cluster.waiting_shares() == pytest.approx([3 * 4 / (3 * 4 + 5), 0.0])
    assert cluster.waiting_shares() == [0.0, 0.0]


@pytest.mark.parametrize(("mode", "accumulate"), [("async", 1), ("hybrid", 4)])
def test_without_waiting_a_worker_three_times_faster_pushes_three_times_as_often(
    training, mode: str, accumulate: int
) -> None:
    cluster = cluster_of(training, mode, 2, accumulate, lasting(1.0, 3.0))
    pushes = [push.worker for update in take(cluster, 24 // accumulate) for push in update.pushes]
    assert pushes.count(0) == 3 * pushes.count(1)
    assert cluster.waiting_shares() == [0.0, 0.0]


@pytest.mark.parametrize(("mode", "workers", "accumulate"), MODES)
def test_a_finite_stream_ends_with_every_batch_applied_once(training, mode: str, workers: int, accumulate: int) -> None:
    events: list[Event] = []
    cluster = cluster_of(training, mode, workers, accumulate, UNEVEN, epochs=2, events=events)
    batches = [push.batch for update in cluster.updates() for push in update.pushes]
    assert cluster.stop() is None
    assert [event.kind for event in events].count(Kind.STOPPED) == 1
    plan = training.plan()
    assert sorted(batches) == [(epoch, number) for epoch in (1, 2) for number in range(len(plan.epoch(epoch)))]
    assert cluster.coordinator.finished


PUSHES = [
    WHOLE, PushSettings("bfloat16"), PushSettings(drop=0.9), PushSettings("bfloat16", 0.99, per_matrix=True),
    PushSettings(drop=0.95, local_gradients=LocalGradients(2)),
]  # fmt: skip


@pytest.mark.parametrize("push", PUSHES, ids=str)
@pytest.mark.parametrize("profile", [SECOND, UNEVEN])
@pytest.mark.parametrize(("mode", "workers", "accumulate"), MODES)
def test_going_on_from_a_checkpoint_is_bit_equal_to_never_having_stopped(
    training, through_a_checkpoint, mode: str, workers: int, accumulate: int, profile, push: PushSettings
) -> None:
    training = replace(training, push=push)
    whole = cluster_of(training, mode, workers, accumulate, profile)
    updates = take(whole, 9)
    cluster = cluster_of(training, mode, workers, accumulate, profile)
    made = []
    for count in (1, 4, 4):
        made += take(cluster, count)
        coordinator_state = through_a_checkpoint(cluster.coordinator.state())
        cluster_state = through_a_checkpoint(cluster.state())
        cluster = cluster_of(training, mode, workers, accumulate, profile)
        cluster.coordinator.restore(*coordinator_state)
        cluster.restore(*cluster_state)
    assert made == updates
    assert cluster.time == whole.time
    assert torch.equal(cluster.coordinator.server.parameters, whole.coordinator.server.parameters)
    assert torch.equal(cluster.coordinator.server.optimizer.average, whole.coordinator.server.optimizer.average)
    assert take(cluster, 3) == take(whole, 3)
    assert cluster.waiting_shares() == whole.waiting_shares()


@pytest.mark.parametrize(("mode", "workers", "accumulate"), MODES)
def test_a_run_that_was_stopped_goes_on(
    training, through_a_checkpoint, mode: str, workers: int, accumulate: int
) -> None:
    events: list = []
    cluster = cluster_of(training, mode, workers, accumulate, JITTERED, 1, events)
    made = take(cluster, 2)
    last = cluster.stop()
    made += [last] if last else []
    coordinator_state = through_a_checkpoint(cluster.coordinator.state())
    cluster_state = through_a_checkpoint(cluster.state())
    cluster = cluster_of(training, mode, workers, accumulate, JITTERED, 1, events)
    cluster.coordinator.restore(*coordinator_state)
    cluster.restore(*cluster_state)
    if mode in ("async", "hybrid"):
        made += take(cluster, 1)
        assert cluster.waiting_shares() == [0.0] * workers, "nobody waited for what was thrown away"
    made += cluster.updates()
    assert sorted(push.batch[1] for update in made for push in update.pushes) == list(
        range(len(training.plan().epoch(1)))
    )
    assert [event.kind for event in events].count(Kind.RESUMED) == 1


def test_an_exact_bound_on_staleness_puts_updates_off_and_bounds_it(training) -> None:
    slow = lasting(1.0, 1.0, 10.0)
    free = take(cluster_of(training, "async", 3, 1, slow), 30)
    bound = take(cluster_of(training, PutOff(1, bound=2), 3, 1, slow), 30)
    assert max(age for update in free for age in update.staleness) > 10
    assert max(age for update in bound for age in update.staleness) == 2
    assert max(len(update.pushes) for update in bound) > 5


@pytest.mark.parametrize(("oldest", "accumulate"), [(0, 1), (0, 3), (1, 1), (2, 2)])
@pytest.mark.parametrize("restart", [False, True])
def test_no_push_that_counts_is_older_than_the_oldest_that_may(
    training, oldest: int, accumulate: int, restart: bool
) -> None:
    events: list[Event] = []
    rule = Hybrid(accumulate, oldest, restart)
    updates = take(cluster_of(training, rule, 4, profile=UNEVEN, events=events), 25)
    assert max(age for update in updates for age in update.staleness) <= oldest
    kinds = [event.kind for event in events]
    assert Kind.RESTARTED in kinds if restart else Kind.RESTARTED not in kinds
    assert restart or Kind.REFUSED in kinds
    assert Kind.SET_ASIDE not in kinds


def test_a_bound_that_no_push_reaches_changes_nothing(training) -> None:
    plain = cluster_of(training, "hybrid", 4, 2, UNEVEN)
    updates = take(plain, 12)
    for rule in (Hybrid(2, oldest_push=99), Hybrid(2, oldest_push=99, restart=True), Hybrid(2, max_staleness=99)):
        bounded = cluster_of(training, rule, 4, profile=UNEVEN)
        assert take(bounded, 12) == updates
        assert bounded.time == plain.time
        assert torch.equal(bounded.coordinator.server.parameters, plain.coordinator.server.parameters)


def test_a_worker_that_restarts_stops_when_its_push_becomes_too_old(training) -> None:
    """Worker 1 needs 10 seconds and is one update old at 1.0, two at 2.0, so it begins anew at 2.0, 4.0, 6.0 ..."""
    cluster = cluster_of(training, Hybrid(1, oldest_push=1, restart=True), 2, profile=lasting(1.0, 10.0), events=[])
    begun: list[tuple[float, int, tuple[int, int]]] = []
    next_task = cluster.coordinator.next_task

    def noted(worker: int):
        task = next_task(worker)
        if task is not None:
            begun.append((cluster.time, worker, task.batch))
        return task

    cluster.coordinator.next_task = noted
    assert [update.pushes[0].worker for update in take(cluster, 6)] == [0] * 6
    assert [time for time, worker, _ in begun if worker == 1] == [0.0, 2.0, 4.0]
    assert begun[3:5] == [(2.0, 0, (1, 1)), (2.0, 1, (1, 3))]
    assert cluster.waiting_shares() == [0.0, 0.0], "what it computes in vain is no waiting"


def test_what_a_restarted_worker_pulled_is_waiting_and_no_computing(training) -> None:
    """Worker 1 pulls for a second, and computes for another before its push becomes too old."""
    quick, slow = lasting(1.0, 10.0).workers
    size = cluster_of(training, "sync", 2, profile=lasting(1.0, 1.0)).gradients.size
    profile = ClusterProfile("linked", (quick, replace(slow, bytes_per_second=4.0 * size)))
    cluster = cluster_of(training, Hybrid(1, oldest_push=1, restart=True), 2, profile=profile)
    assert [update.pushes[0].worker for update in take(cluster, 6)] == [0] * 6
    assert cluster.waiting_shares() == pytest.approx([0.0, 0.5])


def test_a_barrier_is_synchronous(training) -> None:
    """With K = 0 and N = W the sums are those of sync, here of workers that come in their order."""
    sync = cluster_of(training, "sync", 3, profile=lasting(1.0, 2.0, 3.0))
    barrier = cluster_of(training, Hybrid(3, max_staleness=0), 3, profile=lasting(1.0, 2.0, 3.0))
    assert take(sync, 8) == take(barrier, 8)
    assert sync.time == barrier.time
    assert torch.equal(sync.coordinator.server.parameters, barrier.coordinator.server.parameters)
    uneven = cluster_of(training, Hybrid(3, max_staleness=0), 3, profile=UNEVEN)
    made, wanted = take(uneven, 8), take(cluster_of(training, "sync", 3, profile=UNEVEN), 8)
    for one, other in zip(made, wanted, strict=True):
        assert {push.batch for push in one.pushes} == {push.batch for push in other.pushes}
        assert set(one.staleness) == {0}


@pytest.mark.parametrize("restart", [False, True])
def test_an_update_of_the_fastest_does_not_wait_for_the_late(training, restart: bool) -> None:
    """Workers need 1, 1 and 10 seconds; the update waits for two of three."""
    events: list[Event] = []
    rule = Synchronous(3, fastest=2, restart=restart)
    cluster = cluster_of(training, rule, 3, profile=lasting(1.0, 1.0, 10.0), events=events)
    updates = take(cluster, 12)
    assert {tuple(push.worker for push in update.pushes) for update in updates} == {(0, 1)}
    assert {update.staleness for update in updates} == {(0, 0)}
    assert cluster.time == 12.0
    kinds = [event.kind for event in events]
    assert kinds.count(Kind.RESTARTED) == (12 if restart else 0)
    assert kinds.count(Kind.REFUSED) == (0 if restart else 1)
    late = [event.batch for event in events if event.kind in (Kind.REFUSED, Kind.RESTARTED)]
    applied = {push.batch for update in updates for push in update.pushes}
    assert set(late[:-2]) <= applied, "others compute what came too late"


@pytest.mark.parametrize("balance", [False, True])
def test_the_fastest_of_all_is_sync(training, balance: bool) -> None:
    rule = rule_for("sync", 3, 2, Waiting(fastest=6, balance=balance))
    sync, all_of_them = cluster_of(training, "sync", 3, 2, UNEVEN), cluster_of(training, rule, 3, profile=UNEVEN)
    assert [update.tokens for update in take(sync, 8)] == [update.tokens for update in take(all_of_them, 8)]
    assert torch.equal(sync.coordinator.server.parameters, all_of_them.coordinator.server.parameters)


@pytest.mark.parametrize("restart", [False, True])
def test_adaptive_that_waits_for_all_is_sync(training, restart: bool) -> None:
    """The sums are those of sync, here of workers that come in their order."""
    profile = lasting(1.0, 2.0, 3.0)
    sync = cluster_of(training, "sync", 3, profile=profile)
    adaptive = cluster_of(training, Adaptive(3, 3, oldest_push=0, restart=restart), 3, profile=profile)
    assert take(sync, 8) == take(adaptive, 8)
    assert sync.time == adaptive.time
    assert sync.waiting_shares() == adaptive.waiting_shares()
    assert torch.equal(sync.coordinator.server.parameters, adaptive.coordinator.server.parameters)


def test_adaptive_waits_for_more_workers_as_the_loss_falls(training) -> None:
    cluster = cluster_of(training, Adaptive(4, 3), 4, profile=lasting(1.0, 1.1, 1.2, 1.3))
    updates = take(cluster, 150)
    sizes = [len(update.pushes) for update in updates]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (3, 4)
    losses = cluster.coordinator.rule.losses
    assert losses.first == updates[0].loss / updates[0].tokens
    assert 3 * math.sqrt(losses.first / losses.mean) >= 3.5, "4 is what the loss asks for"
    for update in updates:
        assert len({push.worker for push in update.pushes}) == len(update.pushes), "one push of each"
    stale = [age for update in updates[2 : sizes.index(4)] for age in update.staleness]
    assert sum(stale) / len(stale) == pytest.approx(Adaptive(4, 3).staleness(4), rel=0.1)


@pytest.mark.parametrize("profile", [lasting(1.0, 1.0, 4.0), JITTERED, UNEVEN])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_balanced_round_has_the_same_update_sooner(training, accumulate: int, profile: ClusterProfile) -> None:
    plain = cluster_of(training, "sync", 3, accumulate, profile)
    balanced = cluster_of(training, Synchronous(3, accumulate, balance=True), 3, profile=profile)
    made, wanted = take(balanced, 8), take(plain, 8)
    for one, other in zip(made, wanted, strict=True):
        assert [push.batch for push in one.pushes] == [push.batch for push in other.pushes]
        assert one.gradient_norm == other.gradient_norm
    assert torch.equal(balanced.coordinator.server.parameters, plain.coordinator.server.parameters)
    assert balanced.time < plain.time
    assert sum(balanced.waiting_shares()) < sum(plain.waiting_shares())


@pytest.mark.parametrize(("accumulate", "bound"), [(1, 1), (1, 2), (2, 1), (4, 1)])
def test_in_ssp_no_push_is_refused_and_none_is_older_than_the_bound(training, accumulate: int, bound: int) -> None:
    events: list[Event] = []
    rule = Hybrid(accumulate, max_staleness=bound)
    cluster = cluster_of(training, rule, 4, profile=lasting(1.0, 1.1, 1.3, 9.0), events=events)
    updates = take(cluster, 40)
    ages = [age for update in updates for age in update.staleness]
    assert max(ages) == bound
    assert sum(ages) / len(ages) <= rule.staleness(4)
    assert {event.kind for event in events} == {Kind.STARTED, Kind.ACCUMULATED, Kind.UPDATED}
    assert all(accumulate <= len(update.pushes) < accumulate + 4 for update in updates)
    shares = cluster.waiting_shares()
    assert shares[3] < 0.1 < min(shares[:3]), "the fast wait for the slow one"


def test_a_wait_that_another_push_ends_ends_with_it(training) -> None:
    """Workers 0 and 1 wait while worker 2 computes on old parameters; its push makes no update and lets them begin."""
    cluster = cluster_of(training, Patient(4, bound=1), 3, 1, lasting(1.0, 1.0, 5.0))
    begun: list[tuple[float, int]] = []
    next_task = cluster.coordinator.next_task

    def noted(worker: int):
        task = next_task(worker)
        if task is not None:
            begun.append((cluster.time, worker))
        return task

    cluster.coordinator.next_task = noted
    take(cluster, 2)
    assert begun[:6] == [(0.0, 0), (0.0, 1), (0.0, 2), (1.0, 0), (1.0, 1), (2.0, 0)]
    assert begun[6:9] == [(5.0, 0), (5.0, 1), (5.0, 2)]


def test_workers_that_all_wait_end_the_run_with_the_reason(training) -> None:
    with pytest.raises(RunFailure, match=r"every worker waits for another: the rule hybrid:9 never lets any"):
        take(cluster_of(training, Never(9), 2, 1), 1)


@pytest.mark.parametrize("push", PUSHES, ids=str)
def test_a_push_takes_the_time_of_its_bytes_and_a_pull_that_of_the_parameters(training, push: PushSettings) -> None:
    link = replace(lasting(1.0), workers=(WorkerProfile(math.inf, 1.0, bytes_per_second=1e4, latency=0.25),))
    cluster = cluster_of(replace(training, push=push), "async", 1, profile=link)
    size, times = cluster.gradients.size, [0.0]
    for update in itertools.islice(cluster.updates(), 3):
        times.append(cluster.time)
        (sent,) = (one.bytes for one in update.pushes)
        number = 4 if push.dtype == "float32" else 2
        assert (sent == number * size) if not push.drop else (0 < sent < number * size and sent % (4 + number) == 0)
        assert times[-1] - times[-2] == pytest.approx(0.25 + 4 * size / 1e4 + 1.0 + 0.25 + sent / 1e4)
