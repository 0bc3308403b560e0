"""Between machines: what they say, who gets which batch, and what their journals come to together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync.between.contribution import Contribution, Joint, Wish
from nmt_async.sync.between.dealing import Dealing, runs
from nmt_async.sync.between.joint_journal import applied, joint, passed_over
from nmt_async.sync.journal import Event, Kind, decode, encode
from nmt_async.sync.ledger import Ledger
from nmt_async.sync.push import Push
from nmt_async.text.plan import BatchId

BATCHES = 5
COUNT = st.integers(0, 2**32 - 1)
SECONDS = st.floats(allow_nan=False)
BATCH = st.builds(BatchId, st.integers(1, 2**32 - 1), COUNT)
PUSH = st.builds(
    Push, COUNT, BATCH, COUNT, st.integers(0, 2**63), st.integers(0, 2**63), COUNT, st.floats(allow_nan=False),
    st.floats(allow_nan=False), st.floats(allow_nan=False), COUNT, st.integers(0, 2**63),
)  # fmt: skip


@given(
    st.lists(PUSH, max_size=4), COUNT, COUNT, st.lists(BATCH, max_size=3), st.sampled_from(Wish), st.booleans(),
    SECONDS, SECONDS, st.binary(),
)  # fmt: skip
def test_what_a_machine_says_arrives(
    pushes: list[Push], wanted: int, left: int, aside: list[BatchId], wish: Wish, moved: bool, computing: float,
    waiting: float, padding: bytes,
) -> None:  # fmt: skip
    said = Contribution(tuple(pushes), wanted, left, tuple(aside), wish, 7, (), moved, computing, waiting)
    assert Contribution.decode(said.encode() + padding) == said


@given(st.binary(max_size=200))
def test_something_else_is_refused(data: bytes) -> None:
    try:
        Contribution.decode(data)
    except ValueError:
        return
    assert len(data) >= 17, "it has at least a head"


def test_the_highest_wish_counts() -> None:
    def wishes(*all_of_them: Wish) -> Wish:
        return Joint([Contribution((), 0, 0, wish=wish) for wish in all_of_them]).wish

    assert wishes(Wish.GO_ON, Wish.GO_ON) is Wish.GO_ON
    assert wishes(Wish.STOP, Wish.GO_ON) is Wish.STOP
    assert wishes(Wish.STOP, Wish.PAUSE, Wish.GO_ON) is Wish.PAUSE


def dealing(epochs: int | None = None) -> Dealing:
    return Dealing(lambda _: BATCHES, epochs)


def test_batches_are_dealt_in_the_order_of_the_plan() -> None:
    stream = dealing()
    assert stream.deal([1, 2]) == [[(1, 0)], [(1, 1), (1, 2)]]
    assert stream.deal([0, 3]) == [[], [(1, 3), (1, 4), (2, 0)]]
    assert stream.position == (2, 1)
    assert not stream.exhausted


def test_what_is_left_of_a_finite_stream_is_shared_out_in_proportion() -> None:
    stream = dealing(epochs=1)
    assert [len(share) for share in stream.deal([2, 8])] == [1, 4]
    assert stream.exhausted
    assert stream.deal([1, 1]) == [[], []]


def test_what_is_not_done_with_is_dealt_anew() -> None:
    stream = dealing()
    stream.deal([2, 2])
    stream.done([BatchId(1, 1)], [BatchId(1, 2)])
    again = dealing()
    again.restore(json.loads(json.dumps(stream.state())))
    assert again.set_aside == [(1, 2)]
    assert again.deal([3]) == [[(1, 0), (1, 3), (1, 4)]], "what was left comes first, then the stream goes on"
    stream.recall()
    assert stream.deal([1, 1, 1]) == [[(1, 0)], [(1, 3)], [(1, 4)]]


@pytest.mark.parametrize("change", [
    {"position": [0, 0]}, {"position": [1, BATCHES]}, {"recalled": [[1, 4]]}, {"recalled": [[1, 0], [1, 0]]},
    {"recalled": [["1", 0]]}, {"set_aside": [[1, 9]]},
])  # fmt: skip
def test_a_state_of_another_plan_is_refused(change: dict[str, list[object]]) -> None:
    stream = dealing()
    stream.deal([4])
    with pytest.raises(ValueError, match=r"batch"):
        dealing().restore({**stream.state(), **change})


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=9))
def test_no_batch_is_dealt_twice_and_none_is_passed_over(rounds: list[list[int]]) -> None:
    stream = dealing(epochs=2)
    dealt = [batch for wanted in rounds for share in stream.deal(wanted) for batch in share]
    assert dealt == sorted(set(dealt))
    assert not passed_over(dealt, BATCHES)


def test_consecutive_batches_are_one_event() -> None:
    batches = [BatchId(1, 0), BatchId(1, 3), BatchId(1, 4), BatchId(2, 0), BatchId(2, 1)]
    assert runs(batches) == [((1, 0), 1), ((1, 3), 2), ((2, 0), 2)]


# The ledger and the journals of machines

SHARED = Event(Kind.RESUMED, 1, BatchId(2, 0))
A, B, C = (BatchId(1, number) for number in range(3))


def dealt(batch: BatchId, count: int = 1) -> Event:
    return Event(Kind.DEALT, batch=batch, tokens=count)


def computed(batch: BatchId, version: int = 0) -> list[Event]:
    return [Event(Kind.STARTED, 0, batch, version), Event(Kind.ACCUMULATED, 0, batch, version, tokens=3)]


def updated(version: int, tokens: int = 3) -> list[Event]:
    contributed = Event(Kind.CONTRIBUTED, version=version - 1, tokens=tokens)
    return [contributed, Event(Kind.UPDATED, version=version, tokens=tokens)]


def ledger_after(*events: Event) -> Ledger:
    ledger = Ledger(lambda _: BATCHES)
    for event in events:
        ledger.take(event)
    return ledger


def test_a_machine_begins_what_it_was_dealt() -> None:
    ledger = ledger_after(SHARED, dealt(B, 2))
    assert ledger.next(0) == B
    assert ledger.left == 2
    with pytest.raises(ValueError, match="batch 1 of epoch 1 comes next"):
        ledger.take(Event(Kind.STARTED, 0, A))
    with pytest.raises(ValueError, match="had some of them already"):
        ledger.take(dealt(C))


def test_a_contribution_is_on_the_way_until_its_update() -> None:
    ledger = ledger_after(SHARED, dealt(A, 2), *computed(A), updated(1)[0])
    assert list(ledger.on_the_way) == [A]
    assert ledger.left == 1
    with pytest.raises(ValueError, match="another contribution was on its way"):
        ledger.take(updated(1)[0])
    with pytest.raises(ValueError, match="3 tokens were on the way"):
        ledger.take(Event(Kind.UPDATED, version=1, tokens=4))
    ledger.take(updated(1)[1])
    assert (ledger.applied, ledger.version, dict(ledger.on_the_way)) == (1, 1, {})


def test_what_is_accumulated_meanwhile_is_not_in_that_update() -> None:
    ledger = ledger_after(SHARED, dealt(A, 2), *computed(A), updated(1)[0], *computed(B), updated(1)[1])
    assert ledger.applied == 1
    assert list(ledger.accumulated) == [B]


def test_a_machine_without_a_push_takes_part_in_an_update() -> None:
    assert ledger_after(SHARED, *updated(1, tokens=0)).version == 1


def test_what_is_not_applied_leaves_when_the_run_goes_on() -> None:
    gone_on = Event(Kind.RESUMED, 1, BatchId(3, 2), version=7)
    ledger = ledger_after(SHARED, dealt(A, 3), *computed(A), updated(1)[0], *computed(B), gone_on)
    assert (ledger.left, ledger.version, dict(ledger.on_the_way)) == (0, 7, {})
    ledger.take(dealt(A))
    assert ledger.next(0) == A


def test_the_events_survive_being_written() -> None:
    events = [SHARED, dealt(A, 2), *computed(A), *updated(1)]
    assert list(decode(b"".join(map(encode, events)))) == events
    assert str(SHARED) == "resumed, machine 0 of 2, version 0"
    assert str(dealt(A, 2)) == "dealt, 2 batches from number 0 of epoch 1 on"


def test_journals_together_say_what_is_applied() -> None:
    first = [SHARED, dealt(A), *computed(A), *updated(1)]
    second = [SHARED, dealt(B), *computed(B), *updated(1)]
    assert applied(first) == {A: 1}
    assert joint([first, second]) == {A: 1, B: 1}
    assert passed_over(joint([first, second]), BATCHES) == []
    assert passed_over([A, C], BATCHES) == [B]
    with pytest.raises(ValueError, match="batch 0 of epoch 1 was applied twice"):
        joint([first, first])
