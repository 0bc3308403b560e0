"""A journal replays to bit-equal parameters, and one that was changed is found out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rules import PutOff

from nmt_async.cluster.coordinator import Coordinator, TooManySetAside
from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker
from nmt_async.errors import RunFailure
from nmt_async.sync.compression.message import Slots
from nmt_async.sync.compression.settings import WHOLE, LocalGradients, PushSettings
from nmt_async.sync.journal import Event, Kind, decode, effective, encode
from nmt_async.sync.rules import Adaptive, Hybrid, Rule, Synchronous, rule_for

WORKERS = 3


class Poisoned(Worker):
    """Of some batches the gradient is not finite, wherever it is computed."""

    def compute(self, parameters, gradient, parts, key, pieces: int = 1, rate: float = 0.0) -> Computed:
        computed = super().compute(parameters, gradient, parts, key, pieces, rate)
        return replace(computed, loss=float("nan")) if key[1] % 7 == 2 else computed


def worker_of(training, poisoned: bool) -> Worker:
    kind = Poisoned if poisoned else Worker
    return kind(training.model(0.2), 5, training.label_smoothing, torch.device("cpu"), push=training.push)


def replayed(training, mode: str | Rule, accumulate: int, events: list[Event], poisoned: bool = False) -> Coordinator:
    """The coordinator at the end of a replay of what a file would hold of ``events``."""
    standing = effective(decode(b"".join(map(encode, events))))

    def build(record, workers: int) -> Coordinator:
        coordinator = training.coordinator(mode, workers, accumulate)
        return Coordinator(coordinator.server, coordinator.plan, record, [].append)

    replay = Replay(build, worker_of(training, poisoned), training.data, WORKERS)
    replay.run(standing)
    return replay.coordinator


def assert_bit_equal(one: Coordinator, other: Coordinator) -> None:
    values, tensors = one.state()
    other_values, other_tensors = other.state()
    assert values == other_values
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


UNEVEN = ClusterProfile("uneven", tuple(WorkerProfile(1.0 / (1 + index), jitter=0.3) for index in range(WORKERS)))


def simulated(training, mode, accumulate, events) -> SimulatedCluster:
    coordinator = training.coordinator(mode, WORKERS, accumulate, events=events)
    gradients = training.gradients(0.2)
    return SimulatedCluster(coordinator, gradients, UNEVEN, form=gradients.worker.form)


MODES = [
    ("sync", 1), ("sync", 2), ("async", 1), ("hybrid", 4), (Hybrid(1, oldest_push=1), 1),
    (Hybrid(1, oldest_push=1, restart=True), 1), (Hybrid(2, max_staleness=1), 1),
    (Synchronous(3, fastest=2), 1), (Synchronous(3, 2, fastest=4, restart=True), 1),
    (Synchronous(3, 2, balance=True), 1), (Adaptive(3), 1), (Adaptive(3, 2, oldest_push=0, restart=True), 1),
]  # fmt: skip


PUSHES = [
    WHOLE, PushSettings("bfloat16"), PushSettings(drop=0.9), PushSettings("bfloat16", 0.99, per_matrix=True),
    PushSettings(drop=0.95, local_gradients=LocalGradients(2)),
]  # fmt: skip


@pytest.mark.parametrize("push", PUSHES, ids=str)
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_simulated_run_replays_also_when_it_went_on_from_a_checkpoint(
    training, through_a_checkpoint, mode: tuple[str, int], resumed: bool, push: PushSettings
) -> None:
    training = replace(training, push=push)
    events: list[Event] = []
    held = False
    cluster = simulated(training, *mode, events)
    list(itertools.islice(cluster.updates(), 4))
    if resumed:
        states = through_a_checkpoint(cluster.coordinator.state()), through_a_checkpoint(cluster.state())
        held = any(entry["held"] for entry in states[1][0]["coming"])
        assert held == (mode[0] != "sync") or isinstance(mode[0], Rule), "there no worker holds anything then"
        list(itertools.islice(cluster.updates(), 2))  # void: the run crashes before its next checkpoint
        cluster = simulated(training, *mode, events)
        cluster.coordinator.restore(*states[0])
        cluster.restore(*states[1])
    list(itertools.islice(cluster.updates(), 3))
    cluster.stop()
    assert_bit_equal(replayed(training, *mode, events), cluster.coordinator)
    kinds = {event.kind for event in events}
    assert (Kind.RESUMED in kinds) == resumed
    assert (Kind.READMITTED in kinds) == held


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["start"] * 4 + ["push"] * 4 + ["die", "save", "resume", "stop"]), st.integers(0, 2)),
    min_size=15,
    max_size=40,
)


@settings(max_examples=35)
@given(actions=ACTIONS, poisoned=st.booleans(), push=st.sampled_from(PUSHES), rule=st.sampled_from([
    rule_for("sync", 3, 1), rule_for("sync", 3, 2), rule_for("async", 3), rule_for("hybrid", 3, 4), PutOff(2),
    Hybrid(1, oldest_push=1), Hybrid(2, oldest_push=0), Hybrid(1, oldest_push=1, restart=True),
    Hybrid(2, oldest_push=0, restart=True), Hybrid(2, max_staleness=1), Hybrid(3, max_staleness=0),
    Adaptive(3), Adaptive(3, 2, oldest_push=1, restart=True), Adaptive(2, oldest_push=0),
    Synchronous(3, 2, fastest=4, restart=True), Synchronous(3, 2, fastest=5), Synchronous(3, 2, balance=True),
]))  # fmt: skip
def test_any_history_replays(
    training, through_a_checkpoint, actions: list, poisoned: bool, push: PushSettings, rule: Rule
) -> None:
    """Deaths, refusals, batches set aside, stops, checkpoints at any moment and resumes from them."""
    training = replace(training, push=push)
    events: list[Event] = []
    worker = worker_of(training, poisoned)
    slots = Slots.of(worker.form, WORKERS)
    coordinator = training.coordinator(rule, WORKERS, events=events)
    at: dict[int, Computed] = {}
    saved = None
    for action, index in actions:
        if action == "start" and (task := coordinator.next_task(index)):
            parts = training.data.batches(task.parts)
            parameters = coordinator.server.ring.buffers[task.buffer]
            residuals = coordinator.server.residuals
            room = slots.room(index, residuals and residuals.rows, task.residual)
            at[index] = worker.compute(parameters, room, parts, task.batch, rate=task.rate)
            coordinator.server.computed(index)
        elif action in ("push", "die"):
            computed = at.pop(index, None)
            try:
                if action == "die":
                    coordinator.died(index)
                elif computed:
                    coordinator.push(index, computed, slots.message(index, computed.entries))
            except TooManySetAside:
                coordinator.stop()
                at = {}
        elif action == "stop":
            coordinator.stop()
            at = {}
        elif action == "save":
            saved = through_a_checkpoint(coordinator.state())
        elif action == "resume":
            coordinator = training.coordinator(rule, WORKERS, events=events)
            coordinator.restore(*(saved or coordinator.state()))
            coordinator.due()
            at = {}
        for restarted in coordinator.take_restarted():
            del at[restarted]
    assert_bit_equal(replayed(training, rule, 1, events, poisoned), coordinator)


CHANGES = {
    "lost": lambda _event: [],
    "twice": lambda event: [event, event],
    "of another worker": lambda event: [replace(event, worker=(event.worker + 1) % WORKERS)],
    "of a worker there is not": lambda event: [replace(event, worker=40_000)],
    "of another version": lambda event: [replace(event, version=event.version + 1)],
    "of another batch": lambda event: [replace(event, batch=(event.batch[0], event.batch[1] + 1))],
    "of more tokens": lambda event: [replace(event, tokens=event.tokens + 1)],
    "in pieces": lambda event: [replace(event, pieces=2)],
    "of another kind": lambda event: [replace(event, kind=Kind(event.kind % len(Kind) + 1))],
}


@pytest.fixture(scope="module")
def eventful(training, through_a_checkpoint) -> list[Event]:
    """The journal of an asynchronous run with a death, a resume and a stop."""
    events: list[Event] = []
    cluster = simulated(training, "async", 1, events)
    list(itertools.islice(cluster.updates(), 3))
    states = through_a_checkpoint(cluster.coordinator.state()), through_a_checkpoint(cluster.state())
    cluster = simulated(training, "async", 1, events)
    cluster.coordinator.restore(*states[0])
    cluster.restore(*states[1])
    list(itertools.islice(cluster.updates(), 2))
    cluster.coordinator.died(next(iter(cluster.coordinator.ledger.out)))
    cluster.stop()
    cluster.coordinator.next_task(0)
    return events


@pytest.mark.parametrize("change", CHANGES)
def test_a_journal_that_was_changed_is_found_out(training, eventful: list[Event], change: str) -> None:
    replayed(training, "async", 1, eventful)
    seen = set()
    for place, event in enumerate(eventful):
        if event.kind in seen or place == len(eventful) - 1:
            continue
        seen.add(event.kind)
        changed = [*eventful[:place], *CHANGES[change](event), *eventful[place + 1 :]]
        # Runs that stop or resume twice, or with more workers than they use, or whose workers die where others were
        # stopped, are runs like any other; and so are those of another sitting.
        if (change, event.kind) in {
            ("twice", Kind.STOPPED), ("lost", Kind.STOPPED), ("twice", Kind.RESUMED),
            ("of a worker there is not", Kind.RESUMED), ("of more tokens", Kind.RESUMED),
        }:  # fmt: skip
            continue
        with pytest.raises((RunFailure, ValueError), match=r"journal has|replay came to|events are missing"):
            replayed(training, "async", 1, changed)


def test_a_replay_with_another_seed_comes_to_another_end(training) -> None:
    """Floats are not recorded: what the journal cannot show, the parameters do."""
    events: list[Event] = []
    cluster = simulated(training, "async", 1, events)
    list(itertools.islice(cluster.updates(), 3))
    other = training.coordinator("async", WORKERS)
    replay = Replay(
        lambda record, _workers: Coordinator(other.server, other.plan, record, [].append),
        Worker(training.model(0.2), 6, 0.1, torch.device("cpu")), training.data, WORKERS,
    )  # fmt: skip
    replay.run(events)
    assert not torch.equal(replay.coordinator.server.parameters, cluster.coordinator.server.parameters)
