"""The journal's records, and which of them stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.sync.journal import RECORD_BYTES, Event, Kind, decode, effective, encode

WORD = st.integers(0, 2**32 - 1)
EVENTS = st.lists(
    st.builds(
        Event, kind=st.sampled_from(Kind), worker=st.integers(0, 2**24 - 1), batch=st.tuples(WORD, WORD), version=WORD,
        tokens=st.integers(0, 2**64 - 1), pieces=WORD, stands=WORD,
    )
)  # fmt: skip


@given(events=EVENTS, torn=st.integers(0, RECORD_BYTES - 1))
def test_what_is_recorded_is_read_back_and_a_torn_last_record_passed_over(events: list[Event], torn: int) -> None:
    data = b"".join(map(encode, events))
    assert len(data) == RECORD_BYTES * len(events)
    assert list(decode(data + encode(Event(Kind.STOPPED, version=7))[:torn])) == events


def test_a_record_of_no_known_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="99"):
        list(decode(bytes([99]) + bytes(RECORD_BYTES - 1)))


def started(number: int) -> Event:
    return Event(Kind.STARTED, batch=(1, number))


def test_what_came_after_the_checkpoint_of_a_resume_is_void() -> None:
    first = [started(number) for number in range(5)]
    resumed, again = Event(Kind.RESUMED, stands=2), Event(Kind.RESUMED, stands=3)
    assert effective([*first, resumed, started(7)]) == [*first[:2], resumed, started(7)]
    # Twice from the same checkpoint: the second time voids the first. Then from one that was made after a resume.
    assert effective([*first, resumed, started(7), resumed, started(8)]) == [*first[:2], resumed, resumed, started(8)]
    assert effective([*first, resumed, started(7), started(8), again]) == [*first[:2], resumed, started(7), again]
    from_scratch = Event(Kind.RESUMED)
    assert effective([*first, from_scratch, started(0)]) == [from_scratch, started(0)]


def test_a_journal_that_lost_events_before_a_resume_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 events are missing before update 9"):
        effective([started(0), Event(Kind.RESUMED, version=9, stands=3)])
