"""The dispatcher: where every batch of the stream is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nmt_async.text.dispatcher import Dispatcher
from nmt_async.text.plan import BatchId, BatchPlan


def three_a_epoch(last_epoch: int | None = None) -> Dispatcher:
    return Dispatcher(BatchPlan(np.full(3, 4), np.full(3, 4), 4, 1), last_epoch)


def reopened(dispatcher: Dispatcher) -> Dispatcher:
    other = three_a_epoch(dispatcher.last_epoch)
    other.restore(json.loads(json.dumps(dispatcher.state())))
    return other


def test_the_stream_goes_through_one_epoch_after_the_other() -> None:
    dispatcher = three_a_epoch()
    taken = [dispatcher.take(worker) for worker in range(7)]
    assert taken == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert dispatcher.out == {batch: worker for worker, batch in enumerate(taken)}


def test_a_finite_stream_is_exhausted_when_nothing_waits_or_is_out() -> None:
    dispatcher = three_a_epoch(last_epoch=1)
    batches = [dispatcher.take(0) for _ in range(3)]
    assert dispatcher.take(0) is None
    assert not dispatcher.exhausted
    dispatcher.accumulate(batches[0])
    dispatcher.give_back(batches[1])
    dispatcher.fail(batches[2], "death", limit=1)
    assert not dispatcher.exhausted
    assert dispatcher.take(1) == batches[1]
    dispatcher.accumulate(batches[1])
    assert dispatcher.exhausted
    dispatcher.apply(batches[:2])
    assert dispatcher.exhausted
    assert dispatcher.set_aside == [batches[2]]


def test_what_comes_back_is_handed_out_first_and_in_the_plans_order() -> None:
    dispatcher = three_a_epoch()
    first, second, third = (dispatcher.take(0) for _ in range(3))
    for batch in (third, first, second):
        dispatcher.give_back(batch)
    assert [dispatcher.take(1) for _ in range(4)] == [first, second, third, (2, 0)]


def test_a_batch_is_set_aside_after_its_limit_of_one_kind_of_failure() -> None:
    dispatcher = three_a_epoch()
    batch = dispatcher.take(0)
    for reason, aside in (("death", False), ("not finite", False), ("death", False), ("not finite", True)):
        assert dispatcher.fail(batch, reason, limit=3 if reason == "death" else 2) is aside
        dispatcher = reopened(dispatcher)
        if not aside:
            assert dispatcher.take(0) == batch
    assert dispatcher.take(0) == (1, 1)
    assert dispatcher.failures == {}


def test_failures_are_forgotten_once_the_batch_is_applied() -> None:
    dispatcher = three_a_epoch()
    batch = dispatcher.take(0)
    dispatcher.fail(batch, "death", limit=3)
    dispatcher.accumulate(dispatcher.take(1))
    assert dispatcher.failures
    dispatcher.apply([batch])
    assert not dispatcher.failures


def test_a_change_that_does_not_fit_the_state_is_refused_and_changes_nothing() -> None:
    dispatcher = three_a_epoch()
    waiting = BatchId(1, 0)
    out, accumulated, applied, aside = (dispatcher.take(0) for _ in range(4))
    for batch in (accumulated, applied):
        dispatcher.accumulate(batch)
    dispatcher.apply([applied])
    dispatcher.fail(aside, "death", limit=1)
    dispatcher.give_back(out)
    before = dispatcher.state()
    assert dispatcher.returned == [waiting]
    for batch in (waiting, accumulated, applied, aside, BatchId(9, 9)):
        for change in (dispatcher.accumulate, dispatcher.give_back, lambda it: dispatcher.fail(it, "death", 3)):
            with pytest.raises(ValueError, match="is not out"):
                change(batch)
        if batch != accumulated:
            with pytest.raises(ValueError, match="is not accumulated"):
                dispatcher.apply([batch])
        if batch != waiting:
            with pytest.raises(ValueError, match="was not given back"):
                dispatcher.take_back(batch, 0)
    with pytest.raises(ValueError, match="is not accumulated"):
        dispatcher.apply([accumulated, waiting])
    assert dispatcher.state() == before


def test_what_is_out_when_it_is_saved_waits_when_it_goes_on() -> None:
    dispatcher = three_a_epoch()
    first, second, third, fourth = (dispatcher.take(0) for _ in range(4))
    dispatcher.accumulate(second)
    dispatcher.give_back(third)
    dispatcher.fail(fourth, "not finite", limit=1)
    other = reopened(dispatcher)
    assert other.returned == [first, third]
    assert (other.out, other.accumulated, other.set_aside) == ({}, {second}, [fourth])
    other.take_back(third, worker=2)
    assert other.out == {third: 2}
    assert [other.take(0), other.take(0)] == [first, (2, 1)]


def test_a_saved_state_does_not_change_with_the_dispatcher() -> None:
    dispatcher = three_a_epoch()
    batch = dispatcher.take(0)
    dispatcher.fail(batch, "death", limit=3)
    saved = dispatcher.state()
    text = json.dumps(saved)
    dispatcher.take(0)
    dispatcher.fail(batch, "death", limit=3)
    dispatcher.take(1)
    assert json.dumps(saved) == text


def test_a_stream_that_had_ended_goes_on_when_its_end_is_moved() -> None:
    dispatcher = three_a_epoch(last_epoch=1)
    for _ in range(3):
        dispatcher.accumulate(dispatcher.take(0))
    longer = three_a_epoch(last_epoch=2)
    longer.restore(dispatcher.state())
    assert not longer.exhausted
    assert longer.take(0) == (2, 0)
