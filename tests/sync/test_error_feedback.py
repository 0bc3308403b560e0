"""What crosses and what is left behind are together the gradient, and what is left behind counts when it should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import Hybrid, OptimizerSettings, ParameterServer, Push, Schedule, Synchronous, Verdict
from nmt_async.sync.compression.error_feedback import Residuals, compress
from nmt_async.sync.compression.message import CHUNK, Slot, Slots, add_to, form_of
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.plan import BatchId

ROUNDED = PushSettings("bfloat16")
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


def slot_of(before: list[float], push: PushSettings = ROUNDED) -> Slot:
    rows = torch.tensor([before, [math.nan] * len(before)])
    room = Slots.of(form_of(push, len(before)), 1).room(0, rows, 0)
    assert isinstance(room, Slot)
    return room


def test_rounding_to_bfloat16_leaves_the_rest_behind() -> None:
    """Bfloat16 has eight bits: from 256 on it holds even numbers, from 512 on multiples of 4; ties go to even."""
    slot = slot_of([0.0, 1.0, -2.0, 0.0])
    norm = compress(torch.tensor([257.0, 257.0, -513.0, 0.5]), slot).norm
    assert slot.values.tolist() == [256.0, 258.0, -516.0, 0.5]
    assert slot.after.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert norm == pytest.approx(math.sqrt(257**2 + 258**2 + 515**2 + 0.5**2))


@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_what_crosses_and_what_is_left_behind_are_gradient_and_residual_exactly(pairs: list) -> None:
    gradient, before = (torch.tensor(side) for side in zip(*pairs, strict=True))
    both = gradient + before
    slot = slot_of(before.tolist())
    compress(gradient, slot)
    assert torch.equal(slot.values.double() + slot.after.double(), both.double())


def test_the_gradient_may_be_made_where_the_residual_will_be() -> None:
    one, other = slot_of([0.25, 1e-3, 7.0]), slot_of([0.25, 1e-3, 7.0])
    gradient = torch.tensor([0.1, 0.2, 0.3])
    one.after.copy_(gradient)
    assert compress(one.after, one) == compress(gradient, other)
    assert torch.equal(one.after, other.after)
    assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3.4e38])
def test_a_push_that_does_not_stay_finite_is_told_by_its_norm(bad: float) -> None:
    """3.4e38 is a float32, and rounds to infinity in bfloat16."""
    assert not math.isfinite(compress(torch.tensor([1.0, bad]), slot_of([0.0, 0.0])).norm)


def test_adding_in_chunks_is_adding() -> None:
    total = torch.randn(2 * CHUNK + 17, generator=torch.Generator().manual_seed(1))
    message = total.flip(0).bfloat16()
    expected = total + message.float()
    add_to(total, message)
    assert torch.equal(total, expected)


SIZE = 4


def server_of(rule, residuals: Tensor | None) -> ParameterServer:
    buffers = torch.zeros(3, SIZE)
    schedule = Schedule(1.0, Quantity(0, "updates"), "none")
    settings = OptimizerSettings(name="sgd", momentum=0.0, nesterov=False, clip_norm=0.0)
    return ParameterServer(buffers, rule, schedule, settings, residuals=residuals)


def push_of(server: ParameterServer, worker: int, number: int, gradient: Tensor, version: int) -> Verdict:
    """A push computed as a worker does, on the residual that counts now."""
    residuals = server.residuals
    assert residuals is not None
    slot = Slot(torch.zeros(SIZE, dtype=torch.bfloat16), None, residuals.before(worker), residuals.after(worker))
    norm = compress(gradient.clone(), slot).norm
    return server.push(Push(worker, BatchId(1, number), version, 1, gradient_norm=norm), slot.values)


def test_a_refused_push_leaves_the_residual_as_it_was() -> None:
    """Its batch comes again: with what it left behind, a part of it would count twice, and the older rest be lost."""
    server = server_of(Synchronous(1), torch.zeros(2, SIZE))
    assert server.residuals is not None
    assert push_of(server, 0, 0, torch.full((SIZE,), 257.0), 0) is Verdict.ACCEPTED
    server.update()
    assert server.residuals.before(0).tolist() == [1.0] * SIZE
    assert push_of(server, 0, 1, torch.full((SIZE,), 257.0), 0) is Verdict.STALE
    assert push_of(server, 0, 1, torch.full((SIZE,), math.nan), 1) is Verdict.NOT_FINITE
    assert server.residuals.before(0).tolist() == [1.0] * SIZE
    assert push_of(server, 0, 1, torch.full((SIZE,), 257.0), 1) is Verdict.ACCEPTED
    server.update()
    assert server.residuals.before(0).tolist() == [0.0] * SIZE
    assert server.parameters.tolist() == [-514.0] * SIZE


def test_residuals_of_workers_that_are_gone_go_to_others() -> None:
    rows = torch.zeros(8, SIZE)
    residuals = Residuals(rows)
    for worker in range(4):
        residuals.after(worker).fill_(10.0**worker)
        residuals.accepted(worker)
    stored = {name: tensor.clone() for name, tensor in residuals.state().items()}
    fewer, more = Residuals(torch.full((4, SIZE), 7.0)), Residuals(torch.full((12, SIZE), 7.0))
    fewer.restore(stored)
    more.restore(stored)
    assert [int(fewer.before(worker)[0]) for worker in range(2)] == [101, 1010]
    assert [int(more.before(worker)[0]) for worker in range(6)] == [1, 10, 100, 1000, 0, 0]
    assert fewer.norm() == more.norm() == residuals.norm() == pytest.approx(1111 * math.sqrt(SIZE))
    residuals.restore(residuals.state())
    assert [int(residuals.before(worker)[0]) for worker in range(4)] == [1, 10, 100, 1000]


def test_a_state_without_residuals_is_refused() -> None:
    values, tensors = server_of(Hybrid(2), None).state()
    with pytest.raises(LookupError, match="residuals"):
        server_of(Hybrid(2), torch.zeros(2, SIZE)).restore(values, tensors)


def test_a_push_in_bfloat16_that_is_held_is_summed_alike_after_a_resume() -> None:
    server, resumed = (server_of(Synchronous(2), torch.zeros(4, SIZE)) for _ in range(2))
    gradients = [torch.randn(SIZE, generator=torch.Generator().manual_seed(number)) for number in range(2)]

    def first(server: ParameterServer) -> None:
        slot = Slot(torch.zeros(SIZE, dtype=torch.bfloat16), None, torch.zeros(SIZE), torch.zeros(SIZE))
        compress(gradients[0].clone(), slot)
        server.push(Push(0, BatchId(1, 0), 0, 1, gradient_norm=1.0), slot.values)
        server.update()

    held = gradients[1].bfloat16()
    server.push(Push(1, BatchId(1, 1), 0, 1, gradient_norm=1.0), held, awaited=BatchId(1, 0))
    values, tensors = server.state()
    assert tensors["held"].dtype == torch.bfloat16
    resumed.restore(values, {name: tensor.clone() for name, tensor in tensors.items()})
    for each in (server, resumed):
        first(each)
    expected = -(gradients[0].bfloat16().float() + held.float()) / 2
    assert torch.equal(server.parameters, resumed.parameters)
    assert torch.allclose(server.parameters, expected)
