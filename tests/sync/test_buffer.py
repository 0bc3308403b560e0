"""The accumulation buffer, and the order of its sum."""

from __future__ import annotations

import json

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.sync.buffer import AccumulationBuffer, OrderedBuffer
from nmt_async.sync.push import Push

SIZE = 7


def gradient(number: int) -> Tensor:
    """Numbers of very different sizes, so that another order gives another sum."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(SIZE, generator=generator) * 10.0 ** torch.randint(-4, 5, (SIZE,), generator=generator)


def push(number: int) -> Push:
    return Push(number % 2, (1, number), 0, tokens=number + 1)


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
    for number in range(6):
        buffer.expect((1, number))
    delivered = []
    for step, number in enumerate(arrival):
        if step == reopen:
            buffer = reopened(buffer)
        if number in lost:
            continue  # it is set aside, or the run ends before it comes
        slot = gradient(number)
        buffer.add(push(number), slot)
        slot.fill_(float("nan"))
        delivered.append(number)
        assert sorted(entry.batch[1] for entry in buffer.pushes) == sorted(delivered)
        assert len(buffer) == len(delivered)
    buffer.settle()
    assert [entry.batch[1] for entry in buffer.pushes] == sorted(delivered)
    assert torch.equal(buffer.sum, in_order(sorted(delivered)))


def test_the_next_round_begins_empty() -> None:
    for kind in (AccumulationBuffer, OrderedBuffer):
        buffer = kind(torch.zeros(SIZE))
        for number in (0, 1):
            buffer.expect((1, number))
            buffer.add(push(number), gradient(number))
            buffer.settle()
            assert torch.equal(buffer.sum, gradient(number))
            buffer.clear()
            assert len(buffer) == 0
            assert buffer.state()[1] == {}


def test_a_batch_begun_again_after_a_death_keeps_its_place() -> None:
    buffer = OrderedBuffer(torch.zeros(SIZE))
    for number in (0, 1, 0):
        buffer.expect((1, number))
    buffer.add(push(1), gradient(1))
    buffer.add(push(0), gradient(0))
    assert torch.equal(buffer.sum, in_order([0, 1]))
