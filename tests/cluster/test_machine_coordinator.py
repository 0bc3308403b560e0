"""Machines that share a run: whatever happens, every batch is in the parameters once, and all machines agree.

The gradient of a batch is 1 at its own place, and updates add up, so that the parameters say how often each counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.task import Computed, Task
from nmt_async.quantity import Quantity
from nmt_async.sync.between.contribution import Contribution, Joint, Wish
from nmt_async.sync.between.joint_journal import joint
from nmt_async.sync.between.lineage import Start, is_void, landed_unheard, standing, starts_of
from nmt_async.sync.between.outer import OuterStep, summed
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import WAYS, Way
from nmt_async.sync.journal import Event, effective
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.rules import Rule, rule_for
from nmt_async.sync.schedule import Schedule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchId, BatchPlan

EPOCHS, BATCHES = 2, 40
MODES = ("sync", "sync:2", "async", "hybrid:3", "hybrid:5")


def plan() -> BatchPlan:
    return BatchPlan(np.full(BATCHES, 3), np.arange(3, 3 + BATCHES), 1, seed=1)


class Adding(FlatOptimizer):
    """Adds the sum of an update's gradients to the parameters."""

    def step(self, parameters: Tensor, total: Tensor, *_: object) -> float:
        parameters.add_(total)
        return 1.0


def mark(batch: BatchId) -> Tensor:
    one = torch.zeros(EPOCHS * BATCHES)
    one[(batch.epoch - 1) * BATCHES + batch.number] = 1.0
    return one


def rule_of(mode: str, workers: int) -> Rule:
    name, _, count = mode.partition(":")
    return rule_for(name, workers, int(count) if count else None)


WHOLE = OuterSettings(3, 1.0, 0.0)
STREAMS = OuterSettings(6, 1.0, 0.0, fragments=3)
EXCHANGES = [(way, WHOLE) for way in WAYS.values()] + [(WAYS["local"], STREAMS)]
NAMES = [*WAYS, "local in fragments"]


def machine_of(
    mode: str,
    way: Way,
    workers: tuple[int, ...],
    rank: int,
    record: Callable[[Event], None],
    settings: OuterSettings = WHOLE,
) -> MachineCoordinator:
    schedule = Schedule(0.01, Quantity(0, "updates"), "none")
    buffers = torch.zeros(workers[rank] + 1, EPOCHS * BATCHES)
    server = ParameterServer(buffers, rule_of(mode, workers[rank]), schedule, OptimizerSettings())
    server.optimizer = Adding(server.parameters, OptimizerSettings())
    outer = OuterStep(settings, server.parameters) if way.local else None
    return MachineCoordinator(server, plan(), record, [].append, EPOCHS, way, workers, rank, outer)


@dataclass
class Machine:
    """One of the machines, with its journal and what its workers are at."""

    coordinator: MachineCoordinator
    events: list[Event]
    at: dict[int, tuple[Task, int]] = field(default_factory=dict)
    brought: tuple[Contribution, Tensor] | None = None
    called: bool = False


class Machines:
    """Machines in one process, whose next step a seed draws."""

    def __init__(
        self, mode: str, way: Way, workers: tuple[int, ...], seed: int, settings: OuterSettings = WHOLE
    ) -> None:
        self.mode, self.way, self.random, self.settings = mode, way, Random(seed), settings
        self.journals: dict[int, list[Event]] = {}
        self.number = 0
        self.starts: list[Start] = []
        self.begin(workers, None)

    def begin(self, workers: tuple[int, ...], state: tuple[str, dict[str, Tensor]] | None) -> None:
        """All are started, from nothing or from a state that one of them has saved."""
        self.machines = []
        values = {} if state is None else json.loads(state[0])
        version = values["server"]["version"] if values else 0
        starts = starts_of(values.get("starts", ()))
        self.number += 1
        now = Start(self.number, version)
        self.starts.append(now)
        for rank in range(len(workers)):
            events = self.journals.setdefault(rank, [])
            before = effective(events)
            unheard = landed_unheard(before, [*starts, now])
            if unheard is not None:
                events.append(unheard)
                before.append(unheard)
            stands = standing(before, [*starts, now])
            coordinator = machine_of(self.mode, self.way, workers, rank, events.append, self.settings)
            if state is None:
                coordinator.begin_shared(stands, self.number)
            else:
                coordinator.take_up(values, {name: t.clone() for name, t in state[1].items()}, stands, self.number)
            self.machines.append(Machine(coordinator, events))
        wanted = [machine.coordinator.round_size for machine in self.machines]
        for machine in self.machines:
            machine.coordinator.begin(wanted)

    def takes_up(self, state: tuple[str, dict[str, Tensor]]) -> bool:
        """Whether no later start made the state void."""
        values = json.loads(state[0])
        return not is_void(starts_of(values["starts"]), values["server"]["version"], self.starts)

    def save(self) -> tuple[str, dict[str, Tensor]] | None:
        """The state of any of them; None if it has none now, since it has not settled with the others."""
        coordinator = self.random.choice(self.machines).coordinator
        if not coordinator.settled:
            coordinator.wish = Wish.SETTLE
            return None
        values, tensors = coordinator.state()
        return json.dumps(values), {name: tensor.clone() for name, tensor in tensors.items()}

    def step(self) -> None:
        """Something happens on one machine."""
        machine = self.random.choice(self.machines)
        coordinator = machine.coordinator
        worker = self.random.randrange(coordinator.workers[coordinator.rank])
        if worker not in machine.at:
            task = coordinator.next_task(worker)
            if task is not None:
                machine.at[worker] = task, coordinator.server.version
        elif self.random.random() < 0.1:
            del machine.at[worker]
            coordinator.died(worker)
        else:
            task, _ = machine.at.pop(worker)
            coordinator.push(worker, Computed(1.0, 3 + int(task.parts[0][0]), 3, 1.0), mark(task.batch))
        self.exchange()

    def exchange(self) -> None:
        """Whoever is ready contributes, or calls the others; when all have contributed it lands, sooner or later."""
        called = self.way.joins and any(machine.coordinator.ready for machine in self.machines)
        for machine in self.machines:
            coordinator = machine.coordinator
            if not coordinator.on_the_way and (coordinator.ready or (called and not coordinator.finished)):
                machine.brought = coordinator.contribute()
        if any(machine.brought is None for machine in self.machines) or self.random.random() < 0.7:
            return
        self.land()

    def land(self, hear: int | None = None) -> None:
        """What all have brought is applied, by the first ``hear`` machines only where that is given."""
        brought = [machine.brought for machine in self.machines]
        said = Joint([Contribution.decode(each[0].encode()) for each in brought if each is not None])
        total = summed([each[1] for each in brought if each is not None])
        for machine in self.machines[:hear]:
            assert machine.brought is not None
            machine.coordinator.land(said, machine.brought[1].copy_(total))
            machine.brought = None

    @property
    def finished(self) -> bool:
        return all(machine.coordinator.finished for machine in self.machines)

    def check(self) -> None:
        """Every batch is in the parameters once, or set aside, and all machines agree; the journals say the same."""
        aside = self.machines[0].coordinator.dealing.set_aside
        once = torch.ones(EPOCHS * BATCHES) - sum(map(mark, aside), torch.zeros(EPOCHS * BATCHES))
        for machine in self.machines:
            parameters = machine.coordinator.server.parameters
            if self.way.local:  # of which it is a mean, so that a batch moves them by a part of 1
                assert torch.equal(parameters, self.machines[0].coordinator.server.parameters)
                shares = {0.0, *(1 / count for count in range(1, 5))}
                assert torch.equal(parameters > 0, once > 0)
                assert all(min(abs(share - value) for share in shares) < 1e-5 for value in parameters.tolist())
            else:
                assert torch.equal(parameters, once)
            assert machine.coordinator.dealing.set_aside == aside
        now = Start(self.number + 1, self.machines[0].coordinator.server.version)
        found = joint([effective(events) for events in self.journals.values()], now)
        assert len(found) == EPOCHS * BATCHES - len(aside)
        assert not {*found} & {*aside}


@pytest.mark.parametrize(("way", "settings"), EXCHANGES, ids=NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [(1,), (1, 1), (2, 2), (3, 1), (2, 1, 3)])
def test_every_batch_counts_once(mode: str, way: Way, settings: OuterSettings, workers: tuple[int, ...]) -> None:
    machines = Machines(mode, way, workers, sum(workers), settings)
    for _ in range(20_000):
        if machines.finished:
            break
        machines.step()
    assert machines.finished
    machines.check()


@pytest.mark.parametrize(("way", "settings"), EXCHANGES, ids=NAMES)
@pytest.mark.parametrize("seed", range(40))
def test_they_go_on_from_any_checkpoint_on_any_number_of_machines(way: Way, settings: OuterSettings, seed: int) -> None:
    random = Random(seed)
    machines = Machines(random.choice(MODES), way, (1, 2), seed, settings)
    saved: list[tuple[str, dict[str, Tensor]]] = []
    for _ in range(20_000):
        if machines.finished:
            break
        machines.step()
        if random.random() < 0.02 and (state := machines.save()) is not None:
            saved = [*saved[-1:], state]
        if random.random() < 0.01 and saved:
            if all(machine.brought is not None for machine in machines.machines):
                # An exchange that has arrived at some machines only, of which one has saved what it came to.
                machines.land(hear=random.randint(0, len(machines.machines)))
                saved.append((machines.save() if random.random() < 0.5 else None) or saved[-1])
            workers = tuple(random.randint(1, 3) for _ in range(random.randint(1, 3)))
            machines.begin(workers, random.choice(list(filter(machines.takes_up, saved)) or [None]))
    assert machines.finished
    machines.check()


def test_they_sum_what_one_machine_would_sum() -> None:
    """Two machines of one worker contribute the batches of a round of one machine of two, in the same order."""
    machines = Machines("sync", WAYS["sync"], (1, 1), seed=1)
    pushed: list[list[BatchId]] = []
    for _ in range(10):
        for machine in machines.machines:
            task = machine.coordinator.next_task(0)
            assert task is not None
            machine.coordinator.push(0, Computed(1.0, 4, 3, 1.0), mark(task.batch))
            machine.brought = machine.coordinator.contribute()
        pushed.append([push.batch for machine in machines.machines for push in machine.brought[0].pushes])  # type: ignore[index]
        machines.land()
    assert pushed == [[(1, 2 * index), (1, 2 * index + 1)] for index in range(10)]


def test_while_it_waits_for_an_update_in_sync_nobody_begins() -> None:
    machines = Machines("hybrid:2", WAYS["sync"], (3, 3), seed=1)
    first = machines.machines[0].coordinator
    for worker in range(2):
        task = first.next_task(worker)
        assert task is not None
        first.push(worker, Computed(1.0, 4, 3, 1.0), mark(task.batch))
    assert first.ready
    first.contribute()
    assert first.next_task(2) is None


def test_lagged_machines_go_on_meanwhile_and_bounds_on_age_do_not_count_it() -> None:
    machines = Machines("sync", WAYS["lagged"], (1, 1), seed=1)
    first, second = machines.machines
    for machine in (first, second):
        task = machine.coordinator.next_task(0)
        assert task is not None
        machine.coordinator.push(0, Computed(1.0, 4, 3, 1.0), mark(task.batch))
        machine.brought = machine.coordinator.contribute()
    late = first.coordinator.next_task(0)
    assert late is not None, "the next round has begun"
    machines.land()
    assert first.coordinator.server.version == 1
    answer = first.coordinator.push(0, Computed(1.0, 4, 3, 1.0), mark(late.batch))
    assert answer.verdict.name == "ACCEPTED", "it is one update old, since the sum was under way"


def test_a_machine_that_has_nothing_does_not_hurry_the_others() -> None:
    machines = Machines("hybrid:3", WAYS["lagged"], (1, 1), seed=1)
    idle = machines.machines[0].coordinator
    while idle.ledger.dealt:
        task = idle.next_task(0)
        assert task is not None
        idle.push(0, Computed(1.0, 4, 3, 1.0), mark(task.batch))
    assert idle.ready, "it has something to bring, and wants more batches"
    idle.contribute()
    idle.on_the_way = False
    assert idle.ready, "there are batches to be dealt"
    idle.dealing.position = BatchId(EPOCHS + 1, 0)
    assert not idle.ready


def test_all_of_them_stop_at_the_wish_of_one() -> None:
    machines = Machines("hybrid:3", WAYS["sync"], (2, 2), seed=3)
    machines.machines[1].coordinator.wish = Wish.PAUSE
    for _ in range(500):
        if machines.finished:
            break
        machines.step()
    assert machines.finished
    assert {machine.coordinator.agreed for machine in machines.machines} == {Wish.PAUSE}
    versions = {machine.coordinator.server.version for machine in machines.machines}
    assert len(versions) == 1
    for machine in machines.machines:
        assert machine.coordinator.next_task(0) is None


def test_a_run_of_one_machine_is_shared_out() -> None:
    """What its open round had summed is computed again, and nothing is lost."""
    alone: dict[str, Any] = {
        "server": {"version": 3, "progress": {"updates": 3, "tokens": 9, "epochs": 0.1},
                   "buffer": {"summed": [{"batch": [1, 5]}], "held": []}},
        "ledger": {"position": [1, 9], "waiting": [[1, 7]], "set_aside": [[1, 2]]},
    }  # fmt: skip
    machine = machine_of("sync", WAYS["sync"], (1, 1), 0, [].append)
    _, tensors = machine.state()
    machine.take_up(alone, tensors, 0, 1)
    assert machine.dealing.recalled == [(1, 5), (1, 7)]
    assert machine.dealing.set_aside == [(1, 2)]
    machine.begin([1, 1])
    assert machine.ledger.dealt == [(1, 5), (1, 9)]
