"""The account of batches finds what a journal that went wrong would hold."""

from __future__ import annotations

import pytest

from nmt_async.sync.accounting import Account, account
from nmt_async.sync.journal import Event, Kind

A, B, C = (1, 0), (1, 1), (1, 2)
TOKENS = 10


def start(batch: tuple[int, int], worker: int = 0, version: int = 0) -> Event:
    return Event(Kind.STARTED, worker, batch, version)


def push(batch: tuple[int, int], worker: int = 0) -> Event:
    return Event(Kind.ACCUMULATED, worker, batch, tokens=TOKENS)


def back(batch: tuple[int, int], worker: int = 0) -> Event:
    return Event(Kind.RETURNED, worker, batch)


def update(pushes: int = 1, version: int = 1) -> Event:
    return Event(Kind.UPDATED, version=version, tokens=pushes * TOKENS)


def three(_: int) -> int:
    return 3


def found(*events: Event) -> Account:
    return account(events)


def test_where_every_batch_is() -> None:
    made = found(start(A), start(B, 1), push(B, 1), update(), back(A), start(A, 1, 1), start(C, 0, 1), push(A, 1))
    assert made.begun == {A, B, C}
    assert made.applied == {B: 1}
    assert made.accumulated == {A: 1}
    assert made.out == {C: 0}
    assert made.unfinished() == [A, C]
    assert (made.twice(), made.lost(three), made.contradictions) == ([], [], [])


def test_a_batch_that_counts_in_two_updates_is_counted_twice() -> None:
    assert found(start(A), push(A), update(), start(A, 0, 1), push(A)).twice() == [A]
    assert found(start(A), push(A), start(A), push(A), update(2)).twice() == [A]


def test_a_batch_that_is_set_aside_and_applied_is_counted_twice() -> None:
    aside = Event(Kind.SET_ASIDE, batch=A)
    made = found(start(A), back(A), aside, start(A), push(A), update())
    assert made.aside == {A}
    assert made.twice() == [A]


def test_a_batch_that_was_never_begun_is_lost_once_the_stream_is_past_it() -> None:
    assert found(start(A), start(C, 1)).lost(three) == [B]
    assert found(start(A), start((2, 0), 1)).lost(three) == [B, C]
    assert found().lost(three) == []


def test_a_batch_that_is_given_back_and_passed_over_is_lost_until_it_is_begun_again() -> None:
    events = [start(A), back(A), start(B)]
    assert found(*events).lost(three) == [A]
    assert found(*events, start(A, 1)).lost(three) == []
    assert found(start(A), back(A)).lost(three) == []


def test_what_was_out_at_a_resume_waits() -> None:
    made = found(start(A), start(B, 1), Event(Kind.RESUMED), Event(Kind.READMITTED, 1, B), start(A))
    assert made.out == {A: 0, B: 1}
    assert made.contradictions == []


@pytest.mark.parametrize(("events", "said"), [
    ([push(A)], "no worker had it"),
    ([start(A), push(A, 1)], "worker 0 had it"),
    ([start(A), start(A, 1)], "another worker had it"),
    ([start(A), Event(Kind.SET_ASIDE, batch=A)], "it had not been given back"),
    ([Event(Kind.READMITTED, 0, A)], "it was not waiting"),
    ([start(A), push(A), update(2)], "10 tokens had been accumulated"),
    ([start(A), push(A), update(version=2)], "the version was 1"),
    ([start(A, version=1)], "the version was 0"),
    ([Event(Kind.RESUMED, version=1)], "the version was 0"),
])  # fmt: skip
def test_what_cannot_have_happened_is_said(events: list[Event], said: str) -> None:
    (contradiction,) = found(*events).contradictions
    assert contradiction.endswith(said)
