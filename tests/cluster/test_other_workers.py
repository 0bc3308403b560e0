"""A coordinator goes on from any checkpoint with other workers: no batch is lost or hangs, and the history replays."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.task import Computed
from nmt_async.sync.journal import Event, Kind, decode, effective, encode

MOST = 6
UPDATES = {"sync": [(1, 6), (2, 3), (3, 2), (6, 1)], "hybrid": [(1, 4), (2, 4), (5, 4)], "async": [(1, 1), (4, 1)]}
"""Workers and N with which a mode's update stays the same."""

CHOICES = st.sampled_from(sorted(UPDATES)).flatmap(
    lambda mode: st.tuples(st.just(mode), st.lists(st.sampled_from(UPDATES[mode]), min_size=2, max_size=4))
)


@settings(max_examples=20)
@given(choice=CHOICES, steps=st.lists(st.tuples(st.booleans(), st.integers(0, MOST - 1)), min_size=30, max_size=60))
def test_any_history_with_other_workers_goes_on_and_replays(
    training, through_a_checkpoint, choice: tuple[str, list[tuple[int, int]]], steps: list[tuple[bool, int]]
) -> None:
    mode, sittings = choice
    events: list[Event] = []
    worker = training.worker(0.2)
    slots = torch.zeros(MOST, worker.layout.size)
    state = None
    for number, (workers, accumulate) in enumerate(sittings):
        coordinator = training.coordinator(mode, workers, accumulate, epochs=2, events=events)
        if state is not None:
            coordinator.restore(*state, workers)
        at: dict[int, Computed] = {}

        def start(index: int, coordinator: Coordinator = coordinator, at: dict[int, Computed] = at) -> bool:
            task = None if index in at else coordinator.next_task(index)
            if task is not None:
                parameters, parts = coordinator.server.ring.buffers[task.buffer], training.data.batches(task.parts)
                at[index] = worker.compute(parameters, slots[index], parts, task.batch)
            return task is not None

        share = len(steps) // len(sittings)
        for push, chosen in steps[number * share : (number + 1) * share]:
            index = chosen % workers
            if push and index in at:
                coordinator.push(index, at.pop(index), slots[index])
            else:
                start(index)
        state = through_a_checkpoint(coordinator.state())
    while not coordinator.finished:
        begun = [start(index) for index in range(workers)]
        assert at or any(begun), "every worker waits for another"
        for index in list(at):
            coordinator.push(index, at.pop(index), slots[index])
    coordinator.stop()

    standing = effective(decode(b"".join(map(encode, events))))
    applied = Counter(event.batch for event in standing if event.kind is Kind.ACCUMULATED)
    epoch = len(coordinator.plan.epoch(1))
    assert applied == Counter({(number, batch): 1 for number in (1, 2) for batch in range(epoch)})
    sizes = [event.tokens for event in standing if event.kind is Kind.UPDATED]
    assert sum(sizes) == 2 * int(training.data.target.lengths.sum())

    def build(record, count: int) -> Coordinator:
        again = dict(sittings)[count] if mode == "sync" else sittings[0][1]
        made = training.coordinator(mode, count, again, epochs=2)
        return Coordinator(made.server, made.plan, record, [].append, 2)

    replay = Replay(build, training.worker(0.2), training.data, sittings[0][0])
    replay.run(standing)
    one, other = coordinator.state(), replay.coordinator.state()
    assert one[0] == other[0]
    assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())
