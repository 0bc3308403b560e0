"""The coordinator: every batch counts exactly once, whatever happens to workers, gradients and runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_rules import PutOff
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator, TooManyNotFinite, TooManySetAside
from nmt_async.cluster.task import Computed, Task
from nmt_async.quantity import Quantity
from nmt_async.sync import (
    Adaptive,
    Event,
    Hybrid,
    Kind,
    OptimizerSettings,
    ParameterServer,
    Rule,
    Schedule,
    Synchronous,
    Update,
    Verdict,
    effective,
    ledger_of,
    rule_for,
)
from nmt_async.sync.journal import decode, encode
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.text.plan import BatchId, BatchPlan

WORKERS, BATCHES, EPOCHS = 3, 5, 2
SIZE = 4


def plan() -> BatchPlan:
    """Five batches an epoch, of one sentence each."""
    return BatchPlan(np.full(BATCHES, 3), np.arange(3, 3 + BATCHES), 1, seed=1)


def coordinator_of(
    rule: Rule, epochs: int | None, record: Callable[[Event], None], warn: Callable[[str], None] = [].append,
    size: int = SIZE,
) -> Coordinator:  # fmt: skip
    """One with a model of so many parameters."""
    schedule = Schedule(0.01, Quantity(0, "updates"), "none")
    server = ParameterServer(torch.zeros(WORKERS + 1, size), rule, schedule, OptimizerSettings())
    return Coordinator(server, plan(), record, warn, epochs)


def gradient(task: Task) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(hash(task.batch) % 2**31))


def computed(task: Task, finite: bool = True) -> Computed:
    return Computed(1.0, 3 + int(task.parts[0][0]), 3, 1.0 if finite else math.nan)


def deliver(coordinator: Coordinator, worker: int, task: Task, finite: bool = True) -> Update | None:
    return coordinator.push(worker, computed(task, finite), gradient(task)).update


class Counting(FlatOptimizer):
    """Adds the gradients of an update to the parameters: of one at each batch's own place, they count it."""

    def step(self, parameters: Tensor, total: Tensor, *_: object) -> float:
        parameters.add_(total)
        return 1.0


def mark(batch: BatchId) -> Tensor:
    one = torch.zeros(EPOCHS * BATCHES)
    one[(batch.epoch - 1) * BATCHES + batch.number] = 1.0
    return one


BOUNDED = (
    Hybrid(1, oldest_push=1), Hybrid(2, oldest_push=1), Hybrid(2, oldest_push=0),
    Hybrid(1, oldest_push=1, restart=True), Hybrid(2, oldest_push=0, restart=True), Hybrid(2, max_staleness=1),
    Hybrid(1, max_staleness=2), Hybrid(3, max_staleness=0), Hybrid(2, max_staleness=0),
    Synchronous(3, fastest=2), Synchronous(3, 2, fastest=4), Synchronous(3, 2, fastest=3, restart=True),
    Adaptive(3), Adaptive(3, 2, oldest_push=1), Adaptive(2, 1, oldest_push=0, restart=True),
    Synchronous(3, 2, balance=True), Synchronous(3, 2, fastest=5, restart=True, balance=True),
)  # fmt: skip
"""Rules that mind how old a push is, or who is the fastest."""


class ExactlyOnce(RuleBasedStateMachine):
    """Two epochs through deaths, refusals, stops and resumes at any point; then every batch is looked for."""

    @initialize(make=st.sampled_from([
        lambda: rule_for("sync", 3, 1), lambda: rule_for("sync", 3, 2), lambda: rule_for("async", 3),
        lambda: rule_for("hybrid", 3, 4), lambda: PutOff(1), lambda: PutOff(2),
        *(lambda rule=rule: rule for rule in BOUNDED),
    ]))  # fmt: skip
    def begin(self, make: Callable[[], Rule]) -> None:
        self.rule = make()
        self.events: list[Event] = []
        self.coordinator = self.counting()
        self.at: dict[int, tuple[Task, int, Tensor, Tensor]] = {}
        self.waited_for = self.rule.pushes
        self.saved: tuple[str, dict[str, Tensor]] | None = None

    def counting(self) -> Coordinator:
        coordinator = coordinator_of(self.rule, EPOCHS, self.events.append, size=EPOCHS * BATCHES)
        coordinator.server.optimizer = Counting(coordinator.server.parameters, OptimizerSettings())
        return coordinator

    @rule(worker=st.integers(0, WORKERS - 1))
    def start(self, worker: int) -> None:
        task = self.coordinator.next_task(worker)
        assert task is None or worker not in self.at
        if task is not None:
            server = self.coordinator.server
            buffer = server.ring.buffers[task.buffer]
            assert torch.equal(buffer, server.parameters)
            self.at[worker] = (task, server.version, buffer, buffer.clone())

    @rule(worker=st.integers(0, WORKERS - 1), finite=st.sampled_from([True, True, True, False]))
    def push(self, worker: int, finite: bool) -> None:
        if worker not in self.at:
            before = self.coordinator.state()[0]
            with pytest.raises(ValueError, match="has no task"):
                self.coordinator.push(worker, Computed(1.0, 1, 1, 1.0), torch.zeros(SIZE))
            assert self.coordinator.state()[0] == before
            return
        task, pulled, _, _ = self.at.pop(worker)
        version, before_vector = self.coordinator.server.version, self.coordinator.server.parameters.clone()
        try:
            answer = self.coordinator.push(worker, computed(task, finite), mark(task.batch))
        except TooManySetAside:
            assert not finite
            return
        counts = self.rule.counts(version - pulled)
        expected = Verdict.NOT_FINITE if not finite else Verdict.ACCEPTED if counts else Verdict.STALE
        assert answer.verdict is expected
        self.judge(answer.update, version, before_vector)

    def judge(self, update: Update | None, version: int, before: Tensor) -> None:
        if update is None:
            assert self.coordinator.server.version == version
            assert torch.equal(self.coordinator.server.parameters, before)
            return
        assert update.version == self.coordinator.server.version == version + 1
        assert update.staleness == tuple(version - push.version for push in update.pushes)
        assert all(map(self.rule.counts, update.staleness))
        for worker in self.coordinator.take_restarted():
            assert not self.rule.counts(update.version - self.at.pop(worker)[1])
        assert len(update.pushes) >= self.waited_for
        most = getattr(self.rule, "max_staleness", None)
        assert most is None or max(update.staleness) <= most
        if not isinstance(self.rule, PutOff) and not most:
            assert len(update.pushes) == self.waited_for
        self.waited_for = self.coordinator.rule.pushes

    @rule(worker=st.integers(0, WORKERS - 1))
    def die(self, worker: int) -> None:
        had = self.at.pop(worker, None)
        version, before = self.coordinator.server.version, self.coordinator.server.parameters.clone()
        try:
            self.judge(self.coordinator.died(worker), version, before)
        except TooManySetAside:
            assert had is not None

    @rule()
    def save(self) -> None:
        values, tensors = self.coordinator.state()
        self.saved = (json.dumps(values), {name: tensor.clone() for name, tensor in tensors.items()})

    @precondition(lambda self: getattr(self, "saved", None) is not None)
    @rule(anew=st.booleans())
    def resume(self, anew: bool) -> None:
        assert self.saved is not None
        values, tensors = self.saved
        if anew:
            self.coordinator = self.counting()
        self.coordinator.restore(json.loads(values), tensors)
        self.at = {}
        self.waited_for = self.coordinator.rule.pushes
        again, copies = self.coordinator.state()
        assert json.dumps(again) == values
        assert all(torch.equal(tensor, copies[name]) for name, tensor in tensors.items())
        version, before = self.coordinator.server.version, self.coordinator.server.parameters.clone()
        self.judge(self.coordinator.due(), version, before)

    @rule()
    def pause_and_go_on(self) -> None:
        self.save()
        self.resume(True)

    @rule()
    def stop_and_go_on(self) -> None:
        self.coordinator.stop()
        assert self.coordinator.stop() is None, "a run that has been stopped is stopped once"
        self.save()
        self.resume(True)

    @invariant()
    def what_workers_are_at_is_out(self) -> None:
        if hasattr(self, "coordinator"):
            ledger = self.coordinator.ledger
            assert {worker: begun.batch for worker, begun in ledger.out.items()} == {
                worker: task.batch for worker, (task, _, _, _) in self.at.items()
            }
            assert {push.batch for push in self.coordinator.server.buffer.pushes} == ledger.accumulated.keys()

    @invariant()
    def the_journal_says_the_same_as_the_live_ledger(self) -> None:
        if hasattr(self, "coordinator"):
            told = vars(ledger_of(effective(decode(b"".join(map(encode, self.events)))), lambda _: BATCHES))
            live = vars(self.coordinator.ledger)
            for name in ("version", "position", "waiting", "refused", "out", "accumulated", "failures", "events"):
                assert told[name] == live[name], name
            assert sorted(told["set_aside"]) == sorted(live["set_aside"])
            for worker in range(WORKERS):
                assert told["_round"][worker] == live["_round"][worker]

    @invariant()
    def each_pull_is_one_whole_version_until_its_push(self) -> None:
        for _, _, buffer, copy in getattr(self, "at", {}).values():
            assert torch.equal(buffer, copy)

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if hasattr(self, "coordinator") and not self.at and not self.coordinator.finished:
            standings = [self.coordinator.ledger.standing(worker) for worker in range(WORKERS)]
            assert any(map(self.rule.may_start, standings))

    @invariant()
    def a_synchronous_round_is_never_larger_than_its_update(self) -> None:
        if hasattr(self, "coordinator") and self.rule.ordered:
            assert len(self.at) + len(self.coordinator.server.buffer) <= self.rule.pushes

    def teardown(self) -> None:
        if not hasattr(self, "coordinator"):
            return
        while not self.coordinator.finished:
            for worker in range(WORKERS):
                self.start(worker)
            assert self.at, "somebody may always begin"
            self.push(min(self.at), True)
        self.coordinator.stop()
        aside = {(batch.epoch - 1) * BATCHES + batch.number for batch in self.coordinator.ledger.set_aside}
        counted = self.coordinator.server.parameters.tolist()
        assert counted == [float(number not in aside) for number in range(EPOCHS * BATCHES)]


ExactlyOnce.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestExactlyOnce = ExactlyOnce.TestCase


@pytest.mark.parametrize("mode", ["sync", "hybrid"])
def test_a_gradient_that_is_not_finite_is_tried_once_more_then_set_aside(mode: str) -> None:
    said: list[str] = []
    coordinator = coordinator_of(rule_for(mode, 2, 1), None, [].append, said.append)
    bad, good = coordinator.next_task(0), coordinator.next_task(1)
    deliver(coordinator, 0, bad, finite=False)
    assert "batch 0 of epoch 1 is tried again: its gradient is not finite" in said[0]
    again = coordinator.next_task(0)
    assert again.batch == bad.batch
    deliver(coordinator, 0, again, finite=False)
    line = int(bad.parts[0][0]) + 1
    assert "is set aside after 2 tries" in said[1]
    assert f"it holds the prepared sentence pairs {line} " in said[1]
    third = coordinator.next_task(0)
    assert third.batch == (1, 2)
    updates = [deliver(coordinator, worker, task) for worker, task in ((1, good), (0, third))]
    pushes = [push.batch for update in updates if update for push in update.pushes]
    assert pushes == [(1, 1), (1, 2)]


def test_a_batch_at_which_three_workers_die_is_set_aside() -> None:
    coordinator = coordinator_of(rule_for("async", 1), None, [].append)
    for _ in range(3):
        assert coordinator.next_task(0).batch == (1, 0)
        assert coordinator.died(0) is None
    assert coordinator.next_task(0).batch == (1, 1)
    assert coordinator.ledger.set_aside == [(1, 0)]


def test_too_many_batches_set_aside_end_the_run_with_what_there_is() -> None:
    coordinator = coordinator_of(rule_for("hybrid", 1, 4), None, [].append)
    deliver(coordinator, 0, coordinator.next_task(0))
    for _ in range(3):
        deliver(coordinator, 0, coordinator.next_task(0), finite=False)
    with pytest.raises(TooManyNotFinite, match=r"2 batches of epoch 1 had to be set aside.*not finite"):
        deliver(coordinator, 0, coordinator.next_task(0), finite=False)
    update = coordinator.stop()
    assert [push.batch for push in update.pushes] == [(1, 0)]


def test_a_refused_stale_push_sends_its_batch_back_without_counting_as_a_failure() -> None:
    events: list[Event] = []
    coordinator = coordinator_of(Hybrid(1, oldest_push=1), None, events.append)
    tasks = [coordinator.next_task(worker) for worker in range(3)]
    for worker in (0, 1):
        assert deliver(coordinator, worker, tasks[worker]) is not None
    for _ in range(5):
        batch = tasks[2].batch
        assert deliver(coordinator, 2, tasks[2]) is None
        assert (events[-1].kind, events[-1].batch) == (Kind.REFUSED, batch)
        tasks[2] = coordinator.next_task(2)
        assert tasks[2].batch != batch, "whoever was too slow for a batch leaves it to the others"
        again = coordinator.next_task(0)
        assert again.batch == batch
        deliver(coordinator, 0, again)
        deliver(coordinator, 0, coordinator.next_task(0))
    assert coordinator.ledger.failures == {}
    assert coordinator.ledger.set_aside == []


def test_a_worker_that_is_always_too_slow_takes_a_batch_again_when_there_is_no_other() -> None:
    coordinator = coordinator_of(Hybrid(1, oldest_push=0), 1, [].append)
    slow = coordinator.next_task(2)
    for _ in range(BATCHES - 1):
        deliver(coordinator, 0, coordinator.next_task(0))
    assert deliver(coordinator, 2, slow) is None
    again = coordinator.next_task(2)
    assert again.batch == slow.batch
    assert deliver(coordinator, 2, again) is not None, "nobody makes an update meanwhile"
    assert coordinator.finished


def test_a_worker_whose_push_is_too_old_is_told_to_restart_by_the_update_that_makes_it_so() -> None:
    events: list[Event] = []
    coordinator = coordinator_of(Hybrid(1, oldest_push=1, restart=True), None, events.append)
    coordinator.next_task(2)
    deliver(coordinator, 0, coordinator.next_task(0))
    assert coordinator.take_restarted() == [], "it is one update old, which counts"
    deliver(coordinator, 0, coordinator.next_task(0))
    assert coordinator.take_restarted() == [2]
    assert coordinator.take_restarted() == [], "it is told once"
    assert [event.kind for event in events[-2:]] == [Kind.UPDATED, Kind.RESTARTED]
    assert (events[-1].worker, events[-1].batch, events[-1].version) == (2, (1, 0), 0)
    assert coordinator.ledger.failures == {}
    with pytest.raises(ValueError, match="worker 2 has no task to push"):
        coordinator.push(2, Computed(1.0, 1, 1, 1.0), torch.zeros(SIZE))
    assert coordinator.next_task(2).batch == (1, 3), "the batch is left to another worker"
    assert coordinator.next_task(0).batch == (1, 0)


@pytest.mark.parametrize("rule", [rule_for("sync", 3, 1), rule_for("sync", 1, 4), rule_for("hybrid", 3, 4)], ids=str)
@pytest.mark.parametrize("readmitted", [False, True])
def test_a_checkpoint_amid_an_update_goes_on_to_the_same_parameters(rule: Rule, readmitted: bool) -> None:
    """As when it is due by the clock: some pushes are in, some are out, in sync one waits for its turn."""

    def run(stopped_after: int | None) -> tuple[Tensor, list[int]]:
        coordinator = coordinator_of(rule, 3, [].append)
        tokens: list[int] = []
        delivered = 0
        while not coordinator.finished:
            at = {worker: coordinator.next_task(worker) for worker in range(1 if rule.pushes == 4 else WORKERS)}
            versions = {worker: begun.version for worker, begun in coordinator.ledger.out.items()}
            for worker in sorted(at, reverse=True):
                if at[worker] is None:
                    continue
                if delivered == stopped_after:
                    values, tensors = coordinator.state()
                    text, copies = json.dumps(values), {name: tensor.clone() for name, tensor in tensors.items()}
                    coordinator = coordinator_of(rule, 3, [].append)
                    coordinator.restore(json.loads(text), copies)
                    for other in [other for other in sorted(at) if other <= worker and at[other]]:
                        if readmitted:
                            coordinator.readmit(other, at[other].batch, versions[other])
                        else:
                            at[other] = coordinator.next_task(other)
                update = deliver(coordinator, worker, at[worker])
                delivered += 1
                if update:
                    tokens.append(update.tokens)
        update = coordinator.stop()
        return coordinator.server.parameters.clone(), [*tokens, update.tokens if update else 0]

    whole = run(None)
    for stopped_after in range(15):
        parameters, tokens = run(stopped_after)
        assert torch.equal(parameters, whole[0])
        assert tokens == whole[1]


def test_after_a_restore_no_worker_is_at_anything() -> None:
    coordinator = coordinator_of(rule_for("async", 3), None, [].append)
    tasks = [coordinator.next_task(worker) for worker in range(2)]
    coordinator.restore(*coordinator.state())
    assert coordinator.ledger.out == {}
    with pytest.raises(ValueError, match="has no task"):
        deliver(coordinator, 0, tasks[0])
    assert [coordinator.next_task(worker).batch for worker in (2, 1, 0)] == [(1, 0), (1, 1), (1, 2)]


def test_a_push_that_comes_twice_changes_nothing_even_where_the_server_would_fail() -> None:
    coordinator = coordinator_of(Hybrid(2), None, [].append)
    task = coordinator.next_task(0)
    with pytest.raises(RuntimeError):
        coordinator.push(0, computed(task), torch.zeros(SIZE + 1))
    assert coordinator.ledger.out[0].batch == task.batch, "the batch is not lost with a push that cannot be summed"
    assert coordinator.died(0) is None
    assert coordinator.ledger.waiting == [task.batch]


def test_an_update_that_was_put_off_is_made_when_the_worker_it_waited_for_is_gone() -> None:
    """A bound on staleness that is exact: no update before the oldest pull is in, or its worker dead."""
    for end in ("push", "refused", "dies"):
        coordinator = coordinator_of(PutOff(1, bound=1), None, [].append)
        slow, fast = coordinator.next_task(0), coordinator.next_task(1)
        assert deliver(coordinator, 1, fast) is not None
        for _ in range(2):
            assert deliver(coordinator, 1, coordinator.next_task(1)) is None, "worker 0 would be two updates old"
        dies = end == "dies"
        update = coordinator.died(0) if dies else deliver(coordinator, 0, slow, finite=end == "push")
        assert update is not None
        assert len(update.pushes) == (3 if end == "push" else 2)
        assert max(update.staleness) <= 1


def test_the_pieces_of_a_push_that_is_refused_are_recorded() -> None:
    events: list[Event] = []
    coordinator = coordinator_of(Hybrid(1, oldest_push=1), None, events.append)
    tasks = [coordinator.next_task(worker) for worker in range(3)]
    for worker in (0, 1):
        deliver(coordinator, worker, tasks[worker])
    coordinator.push(2, Computed(1.0, 5, 5, 1.0, pieces=4), gradient(tasks[2]))
    assert (events[-1].kind, events[-1].pieces) == (Kind.REFUSED, 4)
    again = coordinator.next_task(2)
    coordinator.push(2, Computed(math.nan, 5, 5, 1.0, pieces=3), gradient(again))
    assert (events[-1].kind, events[-1].pieces) == (Kind.NOT_FINITE, 3)


def test_more_workers_than_sixteen_bits_can_be_recorded() -> None:
    events: list[Event] = []
    coordinator_of(Hybrid(1), None, lambda event: events.extend(decode(encode(event)))).next_task(70_000)
    assert events[0].worker == 70_000


def test_what_came_early_is_not_held_once_the_batch_it_waited_for_is_set_aside() -> None:
    """At most W x N - N gradients wait for their turn in sync, as `Synchronous.held` says."""
    rule = rule_for("sync", 2, 4)
    assert Synchronous(2, 4, balance=True).held(2) == 7, "one worker may have begun the first batch and nothing else"
    coordinator = coordinator_of(rule, None, [].append, [].append)
    first = coordinator.next_task(0)
    for _ in range(4):
        deliver(coordinator, 1, coordinator.next_task(1))
    deliver(coordinator, 0, first, finite=False)
    deliver(coordinator, 0, coordinator.next_task(0), finite=False)
    assert coordinator.ledger.set_aside == [(1, 0)]
    for _ in range(3):
        assert len(coordinator.server.buffer.state()[1].get("held", [])) <= rule.held(2)
        deliver(coordinator, 0, coordinator.next_task(0))
        assert "held" not in coordinator.server.buffer.state()[1]


def test_updates_are_timed_by_the_clusters_clock_and_pushes_are_not() -> None:
    coordinator, moments = coordinator_of(Hybrid(2), None, [].append), iter(range(1, 99))
    coordinator.clock = lambda: next(moments) ** 2
    for _ in range(5):
        task = coordinator.next_task(0)
        assert task is not None
        coordinator.push(0, Computed(1.0, 3, 3, 1.0), gradient(task))
    # Two updates, which began at 1 and 9, and were done at 4 and 16.
    assert (coordinator.updates, coordinator.updating) == (2, (4 - 1) + (16 - 9))
