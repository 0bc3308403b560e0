"""Gradient dropping: which numbers cross, and that the others are added to the next gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import Hybrid, OptimizerSettings, ParameterServer, Push, Schedule
from nmt_async.sync.buffer import AccumulationBuffer, OrderedBuffer
from nmt_async.sync.compression.dropping import CHUNK, LEAST_SAMPLE, largest, threshold
from nmt_async.sync.compression.error_feedback import Residuals, compress
from nmt_async.sync.compression.message import Form, Slot, Slots, Sparse, add_to, dense, form_of
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.plan import BatchId


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def picked(vector: list[float], drop: float, most: int = 99, blocks=()) -> list[int]:
    return largest(torch.tensor(vector), drop, most, generator(), blocks).tolist()


def test_the_numbers_of_largest_magnitude_cross() -> None:
    vector = [0.1, -5.0, 0.0, 3.0, -0.2, 4.0, 0.3, 0.05, 0.01, -1.0]
    assert picked(vector, 0.9) == [1]
    assert picked(vector, 0.7) == [1, 3, 5]
    assert picked(vector, 0.0) == [0, 1, 3, 4, 5, 6, 7, 8, 9], "a zero has nothing that could cross"
    assert picked([0.0, 0.0], 0.5) == []


def test_each_matrix_may_have_a_threshold_of_its_own() -> None:
    vector = [100.0, 90.0, 80.0, 70.0, 0.1, 0.4, 0.3, 0.2]
    assert picked(vector, 0.75) == [0, 1]
    assert picked(vector, 0.75, blocks=((0, 4), (4, 8))) == [0, 5]


def test_no_more_cross_than_there_is_room_for() -> None:
    assert picked([1.0, 3.0, -2.0, 5.0, 4.0], 0.0, most=2) == [3, 4]
    assert len(picked([1.0] * 9, 0.9, most=3)) == 3, "all of them reach the threshold"


def test_the_threshold_of_a_sample_is_about_that_of_all() -> None:
    vector = torch.randn(3 * CHUNK, generator=torch.Generator().manual_seed(1))
    limit = threshold(vector, 0.99, generator())
    assert limit == threshold(vector, 0.99, generator()), "the same sample gives the same threshold"
    assert limit != threshold(vector, 0.99, torch.Generator().manual_seed(4))
    places = largest(vector, 0.99, len(vector), generator())
    assert 0.005 < len(places) / len(vector) < 0.02
    assert torch.equal(places, (vector.abs() >= limit).nonzero().flatten())
    short = vector[:LEAST_SAMPLE]
    assert threshold(short, 0.9, generator()) == short.abs().sort().values[-LEAST_SAMPLE // 10]


def pushed(gradients: list[Tensor], push: PushSettings, size: int) -> tuple[list[Sparse], Residuals]:
    """The pushes that one worker makes of them, one after another."""
    residuals, form = Residuals(torch.zeros(2, size)), form_of(push, size)
    messages = []
    for gradient in gradients:
        slots = Slots.of(form, 1)
        room = slots.room(0, residuals.rows, residuals.row(0))
        assert isinstance(room, Slot)
        pick = partial(largest, drop=push.drop, most=form.columns, generator=generator())
        made = compress(gradient.clone(), room, pick)
        message = slots.message(0, made.entries)
        assert isinstance(message, Sparse)
        assert form.sent(made.entries) == made.entries * (4 + message.values.itemsize)
        messages.append(message)
        residuals.accepted(0)
    return messages, residuals


def test_what_was_dropped_is_added_to_the_next_gradient() -> None:
    gradients = [torch.tensor([8.0, 3.0, -1.0, 0.0]), torch.tensor([0.0, 3.0, -4.0, 0.0]), torch.zeros(4)]
    messages, residuals = pushed(gradients, PushSettings(drop=0.75), 4)
    assert [message.indices.tolist() for message in messages] == [[0], [1], [2]]
    assert [message.values.tolist() for message in messages] == [[8.0], [6.0], [-5.0]]
    assert residuals.before(0).tolist() == [0.0] * 4


WHOLE_NUMBERS = st.lists(st.integers(-2000, 2000), min_size=12, max_size=12)


@given(rows=st.lists(WHOLE_NUMBERS, min_size=1, max_size=6), dtype=st.sampled_from(["float32", "bfloat16"]),
       drop=st.sampled_from([0.1, 0.5, 0.9, 0.99]))  # fmt: skip
def test_nothing_is_lost(rows: list[list[int]], dtype: str, drop: float) -> None:
    gradients = [torch.tensor(row, dtype=torch.float32) for row in rows]
    messages, residuals = pushed(gradients, PushSettings(dtype, drop), 12)
    total = residuals.before(0).clone()
    for message in messages:
        add_to(total, message)
    assert torch.equal(total, sum(gradients))


def sparse(indices: list[int], values: list[float], size: int = 6) -> Sparse:
    return Sparse(torch.tensor(indices, dtype=torch.int32), torch.tensor(values), size)


def push_of(number: int, worker: int = 0) -> Push:
    return Push(worker, BatchId(1, number), 0, tokens=2, gradient_norm=1.0)


def test_a_sparse_message_is_summed_as_the_vector_that_it_stands_for() -> None:
    messages = [sparse([1, 4], [2.0, -1.0]), sparse([], []), sparse([0, 4], [0.5, 3.0])]
    ours, theirs = (AccumulationBuffer(torch.full((6,), 9.0)) for _ in range(2))
    for number, message in enumerate(messages):
        ours.add(push_of(number), message)
        theirs.add(push_of(number), dense(message))
    assert torch.equal(ours.sum, theirs.sum)
    assert ours.sum.tolist() == [0.5, 2.0, 0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("also_dense", [False, True])
def test_sparse_messages_that_wait_for_their_turn_are_copied_and_stored(also_dense: bool) -> None:
    buffer, resumed = OrderedBuffer(torch.zeros(6)), OrderedBuffer(torch.zeros(6))
    early = sparse([1, 4], [2.0, -1.0])
    buffer.add(push_of(2), early, awaited=BatchId(1, 0))
    buffer.add(push_of(3), torch.ones(6) if also_dense else sparse([5], [7.0]), awaited=BatchId(1, 0))
    early.values.zero_()  # the worker's slot is used again
    values, tensors = buffer.state()
    resumed.restore(values, {name: tensor.clone() for name, tensor in tensors.items()})
    for each in (buffer, resumed):
        each.add(push_of(0), sparse([0], [1.0]))
        each.settle()
    assert torch.equal(buffer.sum, resumed.sum)
    assert buffer.sum.tolist() == ([2.0, 3.0, 1.0, 1.0, 0.0, 1.0] if also_dense else [1.0, 2.0, 0.0, 0.0, -1.0, 7.0])


def test_a_slot_says_that_a_push_cannot_lie_in_it() -> None:
    slots = Slots.of(Form(6, torch.float32, 2), 1)
    with pytest.raises(ValueError, match="3 numbers does not fit into a slot of 2"):
        slots.message(0, 3)


def test_dropping_nothing_is_a_whole_push() -> None:
    assert not PushSettings(drop=0.0).compressed
    assert form_of(PushSettings(drop=0.0), 6) == Form(6, torch.float32)


def test_the_server_makes_the_same_update_of_what_crossed() -> None:
    def server() -> ParameterServer:
        schedule = Schedule(0.1, Quantity(0, "updates"), "none")
        return ParameterServer(torch.zeros(1, 6), Hybrid(2), schedule, OptimizerSettings())

    ours, theirs = server(), server()
    for number, message in enumerate([sparse([1, 4], [2.0, -1.0]), sparse([0, 4], [0.5, 3.0])]):
        ours.push(push_of(number), message)
        theirs.push(push_of(number), dense(message))
    assert ours.update() == theirs.update()
    assert torch.equal(ours.parameters, theirs.parameters)
