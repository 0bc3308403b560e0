"""The accumulation buffer, and the order of its sum."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.sync.buffer import AccumulationBuffer, OrderedBuffer
from nmt_async.sync.push import Push
from nmt_async.text.plan import BatchId

SIZE = 7


def gradient(number: int) -> Tensor:
    """Numbers of very different sizes, so that another order gives another sum."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(SIZE, generator=generator) * 10.0 ** torch.randint(-4, 5, (SIZE,), generator=generator)


def push(number: int) -> Push:
    return Push(number % 2, BatchId(1, number), 0, tokens=number + 1)


def in_order(numbers: list[int]) -> Tensor:
    total = gradient(numbers[0])
    for number in numbers[1:]:
        total += gradient(number)
    return total


def reopened(buffer: AccumulationBuffer) -> AccumulationBuffer:
    """Another buffer that takes up where this one is, through what a checkpoint can store."""
    values, tensors = buffer.state()
    other = type(buffer)(torch.zeros(SIZE))
    other.restore(json.loads(json.dumps(values)), {name: tensor.clone() for name, tensor in tensors.items()})
    return other


@given(arrival=st.permutations(range(6)))
def test_it_sums_in_the_order_of_arrival(arrival: list[int]) -> None:
    buffer = AccumulationBuffer(torch.zeros(SIZE))
    for number in arrival:
        slot = gradient(number)
        buffer.add(push(number), slot)
        slot.fill_(float("nan"))  # the worker is at its next batch
    assert torch.equal(buffer.sum, in_order(arrival))
    assert [entry.batch[1] for entry in buffer.pushes] == arrival


@given(arrival=st.permutations(range(6)), lost=st.sets(st.integers(0, 5), max_size=4), reopen=st.integers(0, 5))
def test_an_ordered_one_sums_in_the_plans_order_whoever_comes_first(
    arrival: list[int], lost: set[int], reopen: int
) -> None:
    buffer: AccumulationBuffer = OrderedBuffer(torch.zeros(SIZE))
    delivered: list[int] = []
    pending = set(range(6))
    for step, number in enumerate(arrival):
        if step == reopen:
            buffer = reopened(buffer)
        pending.discard(number)
        if number in lost:
            continue  # it is set aside, or the run ends before it comes
        slot = gradient(number)
        awaited = BatchId(1, min(pending)) if pending else None
        buffer.add(push(number), slot, awaited)
        slot.fill_(float("nan"))
        delivered.append(number)
        assert sorted(entry.batch.number for entry in buffer.pushes) == sorted(delivered)
        assert len(buffer) == len(delivered)
        held = [other for other in delivered if pending and other > min(pending)]
        assert [entry.batch.number for entry in buffer.summed] == sorted(set(delivered) - set(held))
    buffer.settle()
    assert [entry.batch.number for entry in buffer.pushes] == sorted(delivered)
    assert torch.equal(buffer.sum, in_order(sorted(delivered)))


def test_a_batch_that_was_set_aside_is_waited_for_no_more() -> None:
    """Else every later push of the round would be copied."""
    buffer = OrderedBuffer(torch.zeros(SIZE))
    buffer.add(push(1), gradient(1), BatchId(1, 0))
    assert buffer.summed == []
    buffer.add(push(2), gradient(2), BatchId(1, 3))  # batch 0 was set aside meanwhile
    assert [entry.batch.number for entry in buffer.summed] == [1, 2]
    assert "held" not in buffer.state()[1]


def test_the_next_round_begins_empty() -> None:
    for kind in (AccumulationBuffer, OrderedBuffer):
        buffer = kind(torch.zeros(SIZE))
        for number in (0, 1):
            buffer.add(push(number), gradient(number))
            buffer.settle()
            assert torch.equal(buffer.sum, gradient(number))
            buffer.clear()
            assert len(buffer) == 0
            assert buffer.state()[1] == {}


def test_a_checkpoint_of_version_0_1_is_read() -> None:
    entry = {**vars(push(1)), "batch": [1, 1], "parts": 3}
    del entry["pieces"]
    buffer = OrderedBuffer(torch.zeros(SIZE))
    buffer.restore({"summed": [entry], "held": [], "expected": [[1, 2]]}, {"sum": gradient(1)})
    assert buffer.pushes == [replace(push(1), pieces=3)]
