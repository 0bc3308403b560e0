"""The coordinator: every batch counts exactly once, whatever happens to workers, gradients and runs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator, TooManyNotFinite, TooManySetAside
from nmt_async.cluster.task import Computed, Task
from nmt_async.sync.journal import Event, Kind, decode, effective, encode
from nmt_async.sync.optimizer import OptimizerSettings
from nmt_async.sync.rules import Hybrid, Rule, rule_for
from nmt_async.sync.schedule import Schedule, Span
from nmt_async.sync.server import ParameterServer
from nmt_async.text.dispatcher import Dispatcher
from nmt_async.text.plan import BatchPlan

SIZE, WORKERS, BATCHES = 4, 3, 5


@dataclass(frozen=True)
class Bounded(Hybrid):
    """Hybrid that throws pushes away which are more than one update old."""

    def counts(self, staleness: int) -> bool:
        return staleness <= 1


def coordinator_of(
    rule: Rule, epochs: int | None, record: Callable[[Event], None], warn: Callable[[str], None] = [].append
) -> Coordinator:
    """One with a model of four parameters and five batches an epoch, of one sentence each."""
    schedule = Schedule(0.01, Span(0, "updates"), "none")
    server = ParameterServer(torch.zeros(WORKERS + 1, SIZE), rule, schedule, OptimizerSettings())
    plan = BatchPlan(np.full(BATCHES, 3), np.arange(3, 3 + BATCHES), 1, seed=1)
    return Coordinator(server, Dispatcher(plan, epochs), record, warn)


def gradient(task: Task) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(hash(task.batch) % 2**31))


def computed(task: Task, finite: bool = True) -> Computed:
    return Computed(1.0, 3 + int(task.parts[0][0]), 3, 1.0 if finite else math.nan)


def deliver(coordinator: Coordinator, worker: int, task: Task, finite: bool = True):
    return coordinator.push(worker, computed(task, finite), gradient(task))


def applied_of(events: list[Event]) -> tuple[Counter, Counter]:
    """How often each batch was applied and set aside, by the journal alone."""
    applied: Counter = Counter()
    aside: Counter = Counter()
    accumulated: list = []
    for event in effective(decode(b"".join(map(encode, events)))):
        if event.kind is Kind.ACCUMULATED:
            accumulated.append(event.batch)
        elif event.kind is Kind.UPDATED:
            applied.update(accumulated)
            accumulated = []
        elif event.kind is Kind.SET_ASIDE:
            aside[event.batch] += 1
    assert not accumulated
    return applied, aside


class ExactlyOnce(RuleBasedStateMachine):
    """Two epochs through deaths, refusals, stops and resumes at any point; then every batch is looked for."""

    @initialize(make=st.sampled_from([
        lambda: rule_for("sync", 3, 1), lambda: rule_for("sync", 3, 2), lambda: rule_for("async", 3, 1),
        lambda: rule_for("hybrid", 3, 4), lambda: Bounded(1), lambda: Bounded(2),
    ]))  # fmt: skip
    def begin(self, make: Callable[[], Rule]) -> None:
        self.rule = make()
        self.events: list[Event] = []
        self.coordinator = coordinator_of(self.rule, 2, self.events.append)
        self.at: dict[int, Task] = {}
        self.saved: tuple[str, dict[str, Tensor]] | None = None

    @rule(worker=st.integers(0, WORKERS - 1))
    def start(self, worker: int) -> None:
        task = self.coordinator.next_task(worker)
        assert task is None or worker not in self.at
        if task is not None:
            assert task.version == self.coordinator.server.version
            self.at[worker] = task

    @rule(worker=st.integers(0, WORKERS - 1), finite=st.sampled_from([True, True, True, False]))
    def push(self, worker: int, finite: bool) -> None:
        task = self.at.pop(worker, None)
        if task is None:
            before = self.coordinator.state()[0]
            with pytest.raises(ValueError, match="has no task"):
                self.coordinator.push(worker, Computed(1.0, 1, 1, 1.0), torch.zeros(SIZE))
            assert self.coordinator.state()[0] == before
            return
        try:
            update = deliver(self.coordinator, worker, task, finite)
            assert update is None or update.version == self.coordinator.server.version
        except TooManySetAside:
            assert not finite

    @rule(worker=st.integers(0, WORKERS - 1))
    def die(self, worker: int) -> None:
        task = self.at.pop(worker, None)
        try:
            assert self.coordinator.died(worker) == (task.batch if task else None)
        except TooManySetAside:
            assert task is not None

    @rule()
    def save(self) -> None:
        values, tensors = self.coordinator.state()
        self.saved = (json.dumps(values), {name: tensor.clone() for name, tensor in tensors.items()})

    @precondition(lambda self: getattr(self, "saved", None) is not None)
    @rule()
    def resume(self) -> None:
        assert self.saved is not None
        values, tensors = self.saved
        self.coordinator = coordinator_of(self.rule, 2, self.events.append)
        self.coordinator.restore(json.loads(values), tensors)
        self.at = {}

    @rule()
    def stop_and_go_on(self) -> None:
        update = self.coordinator.stop()
        assert update is None or update.version == self.coordinator.server.version
        self.save()
        self.resume()

    @invariant()
    def parameters_stay_finite(self) -> None:
        if hasattr(self, "coordinator"):
            assert self.coordinator.server.parameters.isfinite().all()

    @invariant()
    def what_workers_are_at_is_out(self) -> None:
        if hasattr(self, "coordinator"):
            dispatcher = self.coordinator.dispatcher
            assert {task.batch: worker for worker, task in self.at.items()} == dispatcher.out
            accumulated = {push.batch for push in self.coordinator.server.buffer.pushes}
            assert accumulated == dispatcher.accumulated

    def teardown(self) -> None:
        if not hasattr(self, "coordinator"):
            return
        while not self.coordinator.finished:
            for worker in range(WORKERS):
                self.start(worker)
            assert self.at, "somebody may always begin"
            worker = min(self.at)
            self.push(worker, True)
        self.coordinator.stop()
        applied, aside = applied_of(self.events)
        expected = {(epoch, number) for epoch in (1, 2) for number in range(BATCHES)}
        assert set(applied) | set(aside) == expected
        assert max((applied + aside).values()) == 1
        assert sorted(aside) == sorted(self.coordinator.dispatcher.set_aside)


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
    coordinator = coordinator_of(rule_for("async", 1, 1), None, [].append)
    for _ in range(3):
        assert coordinator.next_task(0).batch == (1, 0)
        assert coordinator.died(0) == (1, 0)
    assert coordinator.next_task(0).batch == (1, 1)
    assert coordinator.dispatcher.set_aside == [(1, 0)]


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
    coordinator = coordinator_of(Bounded(1), None, events.append)
    tasks = [coordinator.next_task(worker) for worker in range(3)]
    for worker in (0, 1):
        assert deliver(coordinator, worker, tasks[worker]) is not None
    for _ in range(5):
        assert deliver(coordinator, 2, tasks[2]) is None
        assert events[-1] == Event(Kind.REFUSED, 2, (1, 2), tasks[2].version)
        tasks[2] = coordinator.next_task(2)
        assert tasks[2].batch == (1, 2)
        for _ in range(2):
            deliver(coordinator, 0, coordinator.next_task(0))
    assert coordinator.dispatcher.failures == {}


@pytest.mark.parametrize("rule", [rule_for("sync", 3, 1), rule_for("sync", 1, 4), rule_for("hybrid", 3, 4)], ids=str)
@pytest.mark.parametrize("readmitted", [False, True])
def test_a_checkpoint_amid_an_update_goes_on_to_the_same_parameters(rule: Rule, readmitted: bool) -> None:
    """As when it is due by the clock: some pushes are in, some are out, in sync one waits for its turn."""

    def run(stopped_after: int | None) -> tuple[Tensor, list[int]]:
        coordinator = coordinator_of(rule, 3, [].append)
        tokens = []
        delivered = 0
        while not coordinator.finished:
            at = {worker: coordinator.next_task(worker) for worker in range(1 if rule.pushes == 4 else WORKERS)}
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
                            coordinator.readmit(other, at[other].batch, at[other].version)
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
    coordinator = coordinator_of(rule_for("async", 3, 1), None, [].append)
    tasks = [coordinator.next_task(worker) for worker in range(2)]
    coordinator.restore(*coordinator.state())
    assert coordinator.held() == {}
    with pytest.raises(ValueError, match="has no task"):
        deliver(coordinator, 0, tasks[0])
    assert [coordinator.next_task(worker).batch for worker in (2, 1, 0)] == [(1, 0), (1, 1), (1, 2)]
