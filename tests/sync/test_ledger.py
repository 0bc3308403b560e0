"""The ledger: where every batch is by the events alone, and that it refuses what cannot have happened."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.ledger import Begun, Ledger, ledger_of, of_dispatcher
from nmt_async.sync.push import Push
from nmt_async.text.plan import BatchId

A, B, C, D = BatchId(1, 0), BatchId(1, 1), BatchId(1, 2), BatchId(2, 0)
TOKENS = 10


def start(batch: BatchId, worker: int = 0, version: int = 0) -> Event:
    return Event(Kind.STARTED, worker, batch, version)


def push(batch: BatchId, worker: int = 0, version: int = 0) -> Event:
    return Event(Kind.ACCUMULATED, worker, batch, version, tokens=TOKENS)


def back(batch: BatchId, worker: int = 0, version: int = 0, kind: Kind = Kind.RETURNED) -> Event:
    return Event(kind, worker, batch, version)


def update(pushes: int = 1, version: int = 1) -> Event:
    return Event(Kind.UPDATED, version=version, tokens=pushes * TOKENS)


ASIDE = Event(Kind.SET_ASIDE, batch=A)


def three(_epoch: int) -> int:
    return 3


def fed(*events: Event, last_epoch: int | None = None) -> Ledger:
    ledger = Ledger(three, last_epoch)
    for event in events:
        ledger.take(event)
    return ledger


def test_where_every_batch_is() -> None:
    ledger = fed(start(A), start(B, 1), push(B, 1), update(), back(A), start(A, 1, 1), start(C, 0, 1), push(A, 1, 1))
    assert ledger.out == {0: Begun(C, 1)}
    assert list(ledger.accumulated) == [A]
    assert (ledger.applied, ledger.version, ledger.position) == (1, 1, D)
    assert (ledger.waiting, ledger.set_aside) == ([], [])
    assert ledger.events == 8


def test_the_stream_goes_through_one_epoch_after_the_other_and_ends() -> None:
    ledger = fed(last_epoch=2)
    taken = []
    while (batch := ledger.next(0)) is not None:
        taken.append(batch)
        ledger.take(start(batch, len(taken)))
    assert taken == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert not ledger.finished
    for worker, batch in enumerate(taken, 1):
        ledger.take(push(batch, worker))
    assert ledger.finished
    with pytest.raises(ValueError, match="the stream had ended"):
        ledger.take(start(BatchId(3, 0)))


def test_what_comes_back_is_begun_first_and_in_the_streams_order() -> None:
    ledger = fed(start(A), start(B, 1), start(C, 2), back(C, 2), back(A), back(B, 1))
    assert ledger.waiting == [A, B, C]
    assert ledger.next(0) == A
    for events in ([start(B)], [start(D)]):
        with pytest.raises(ValueError, match="batch 0 of epoch 1 came before it"):
            ledger.take(events[0])
    for batch, worker in ((A, 0), (B, 1), (C, 2)):
        ledger.take(start(batch, worker))
    assert ledger.next(0) == D


def test_failures_are_counted_by_their_kind_until_the_batch_is_applied_or_set_aside() -> None:
    ledger = fed(start(A), back(A), start(A), back(A, kind=Kind.NOT_FINITE), start(A), back(A, kind=Kind.REFUSED))
    assert ledger.failures == {A: {Kind.RETURNED: 1, Kind.NOT_FINITE: 1}}
    for ending in ([start(A), push(A), update()], [ASIDE]):
        other = fed()
        other.restore(json.loads(json.dumps(ledger.state())), 0, [])
        for event in ending:
            other.take(event)
        assert other.failures == {}
    assert other.set_aside == [A]
    assert other.next(0) == B


def test_what_is_given_back_since_the_run_stops_or_is_resumed_has_not_failed() -> None:
    stopped = fed(start(A), start(B, 1), Event(Kind.STOPPED), back(A), back(B, 1))
    resumed = fed(start(A), start(B, 1), Event(Kind.RESUMED))
    for ledger in (stopped, resumed):
        assert (ledger.waiting, ledger.out, ledger.failures) == ([A, B], {}, {})
    assert stopped.stopped
    stopped.take(start(A))
    assert not stopped.stopped
    resumed.take(Event(Kind.READMITTED, 1, B))
    resumed.take(start(A))
    assert resumed.out == {1: Begun(B, 0), 0: Begun(A, 0)}


def counted(ledger: Ledger, worker: int) -> tuple[int, int]:
    """Of the worker's standing, what it and what all have begun."""
    standing = ledger.standing(worker)
    return standing.own, standing.all


def test_a_rule_sees_what_was_begun_since_the_latest_update_delivered_or_not() -> None:
    ledger = fed(start(A), start(B, 1), start(C, 2), push(A))
    assert (counted(ledger, 0), counted(ledger, 3)) == ((1, 3), (0, 3))
    ledger.take(back(B, 1))
    assert (counted(ledger, 0), counted(ledger, 1)) == ((1, 2), (0, 2))
    ledger.take(start(B))
    ledger.take(push(B))
    ledger.take(update(2))
    assert counted(ledger, 0) == (0, 0), "the update begins a new round; worker 2 is at a batch of the old one"
    ledger.take(push(C, 2))
    assert counted(ledger, 2) == (0, 0), "it has delivered to this round, but began in the old one"
    assert (ledger.round().pushes, ledger.round().oldest) == (1, 0)


def test_the_round_knows_how_old_the_oldest_pull_is() -> None:
    ledger = fed(start(A), start(B, 1), push(B, 1), update(), start(C, 1, 1))
    assert sorted(ledger.round().pulled) == [0, 1]
    assert ledger.round().oldest == 1
    ledger.take(push(A))
    assert ledger.round().oldest == 0


def test_the_first_batch_that_is_still_to_come_is_known() -> None:
    ledger = fed(start(A), start(B, 1), start(C, 2))
    assert (ledger.awaited(besides=A), ledger.awaited(besides=C)) == (B, A)
    for event in (back(A), start(A), back(A), ASIDE):
        ledger.take(event)
    assert (ledger.awaited(besides=B), ledger.awaited(besides=C)) == (C, B)
    ledger.take(push(B, 1))
    assert ledger.awaited(besides=C) is None


@pytest.mark.parametrize(("events", "said"), [
    ([push(A)], "worker 0 was at nothing"),
    ([start(A), push(A, 1)], "worker 1 was at nothing"),
    ([start(A), start(B, 1), push(A, 1)], "worker 1 was at batch 1 of epoch 1"),
    ([start(A), start(B)], "that worker was at another batch"),
    ([start(A), start(A, 1)], "batch 1 of epoch 1 comes next"),
    ([start(A), push(A), update(), start(A, 0, 1)], "batch 1 of epoch 1 comes next"),
    ([start(A), back(A), ASIDE, start(A)], "batch 1 of epoch 1 comes next"),
    ([start(A), start(C, 1)], "batch 1 of epoch 1 comes next"),
    ([start(A), start(D, 1)], "batch 1 of epoch 1 comes next"),
    ([start(A), ASIDE], "it had not been given back"),
    ([Event(Kind.READMITTED, 0, A)], "it was not waiting"),
    ([start(A), start(B, 1), back(B, 1), Event(Kind.READMITTED, 0, B)], "that worker was at another batch"),
    ([start(A), push(A), update(2)], "10 tokens had been accumulated"),
    ([start(A), push(A), update(version=2)], "the version was 1"),
    ([update(0)], "nothing had been accumulated"),
    ([start(A, version=1)], "the version was 0"),
    ([start(A), push(A, version=1)], "the version was 0"),
    ([Event(Kind.RESUMED, version=1)], "the version was 0"),
])  # fmt: skip
def test_what_cannot_have_happened_is_refused_and_changes_nothing(events: list[Event], said: str) -> None:
    ledger = fed(*events[:-1])
    before = vars(fed(*events[:-1]))
    with pytest.raises(ValueError, match=said):
        ledger.take(events[-1])
    after = vars(ledger)
    assert {name: value for name, value in after.items() if name != "batches"} == {
        name: value for name, value in before.items() if name != "batches"
    }


def test_what_comes_next_is_what_waits_and_then_the_stream() -> None:
    ledger = fed(start(A), start(B, 1), back(A), last_epoch=1)
    assert [ledger.upcoming(count) for count in range(4)] == [[], [A], [A, C], [A, C]]
    assert fed(start(A)).upcoming(4) == [B, C, D, BatchId(2, 1)]
    shared = fed(start(A))
    shared.dealt = [C, D]
    assert shared.upcoming(3) == [C, D]


def test_without_a_plan_an_epoch_ends_where_the_next_one_begins() -> None:
    assert ledger_of([start(A), start(B, 1), start(D, 2)]).position == (2, 1)
    with pytest.raises(ValueError, match="batch 1 of epoch 1 comes next"):
        ledger_of([start(A), start(C, 1)])


def test_a_checkpoint_holds_all_but_what_workers_are_at() -> None:
    ledger = fed(start(A), start(B, 1), push(B, 1), start(C, 1), back(C, 1))
    state = json.loads(json.dumps(ledger.state()))
    other = fed()
    other.restore(state, 0, [Push(1, B, 0, TOKENS)])
    resumed = Event(Kind.RESUMED, stands=ledger.events)
    for each in (ledger, other):
        each.take(resumed)
    same = {name: value for name, value in vars(ledger).items() if name != "batches"}
    assert same == {name: value for name, value in vars(other).items() if name != "batches"}
    assert other.waiting == [A, C]
    with pytest.raises(ValueError, match="the plan has no batch 3 of epoch 1"):
        other.restore({**state, "waiting": [[1, 3]]}, 0, [])


@pytest.mark.parametrize("change", [
    {"events": -1}, {"events": 2**32}, {"position": [2**32, 0]}, {"waiting": [[1, 0], [1, 0]]}, {"waiting": [[1, 1]]},
    {"waiting": [[2, 0]]}, {"set_aside": [[0, 0]]},
], ids=str)  # fmt: skip
def test_a_state_that_no_run_can_have_left_is_refused_before_anything_happens(change: dict[str, Any]) -> None:
    ledger = fed(start(A), start(B, 1), push(B, 1), start(C, 1), back(C, 1))
    with pytest.raises(ValueError, match=r"is no batch|in two places|is not from 0 to"):
        fed().restore({**json.loads(json.dumps(ledger.state())), **change}, 0, [Push(1, B, 0, TOKENS)])
    for version in (-1, 2**32):
        with pytest.raises(ValueError, match="is not from 0 to"):
            fed().restore(ledger.state(), version, [])


def test_a_state_of_version_0_1_is_read() -> None:
    stored = {
        "position": [2, 1], "returned": [[1, 0], [1, 2]], "accumulated": [[2, 0]], "set_aside": [[1, 1]],
        "failures": [[[1, 0], {"death": 2, "not finite": 1}]],
    }  # fmt: skip
    ledger = fed()
    ledger.restore(of_dispatcher(stored, 17), 4, [Push(0, D, 4, TOKENS)])
    assert (ledger.waiting, ledger.set_aside, ledger.position) == ([A, C], [B], (2, 1))
    assert ledger.failures == {A: {Kind.RETURNED: 2, Kind.NOT_FINITE: 1}}
    assert (ledger.version, ledger.events, list(ledger.accumulated)) == (4, 17, [D])
    assert counted(ledger, 0) == (1, 1)
