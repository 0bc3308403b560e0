"""The server whose vectors several devices own a part each: it is as one that lies on one device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from apart import APART, apart, on_cpu
from driven_servers import CASES, SIZE, WORKERS, Case, Driven, a_half, assert_equal, gradient, zeros
from torch import Tensor

from nmt_async.process.sharded_tensor import ShardedTensor
from nmt_async.sync import CorrectionSettings
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.compression.error_feedback import compress
from nmt_async.sync.compression.message import Slot
from nmt_async.sync.compression.settings import PushSettings

CPU = torch.device("cpu")


def unclipped(case: Case) -> Case:
    return replace(case, optimizer=replace(case.optimizer, clip_norm=0.0))


@pytest.mark.parametrize("places", [(CPU, CPU), (CPU, CPU, CPU)], ids=["two", "three"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_in_parts_it_is_the_same_to_the_last_bit(case: Case, places: tuple[torch.device, ...]) -> None:
    """Everything but the norm goes element by element, and without clipping nothing depends on the norm."""
    whole, parts = Driven(unclipped(case), CPU), Driven(unclipped(case), *places)
    for driven in (whole, parts):
        driven.rounds(range(7))
    assert isinstance(parts.server.parameters, ShardedTensor)
    assert parts.server.version >= 2
    values, tensors = parts.state()
    assert values == whole.state()[0]
    assert_equal(tensors, whole.state()[1])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_clipping_differs_by_the_rounding_of_a_norm(case: Case) -> None:
    """The norm of the whole is that of the norms of the parts, which are summed in another order."""
    whole, parts = Driven(case, CPU), Driven(case, CPU, CPU)
    for driven in (whole, parts):
        driven.rounds(range(7))
    for name, tensor in parts.state()[1].items():
        torch.testing.assert_close(tensor, whole.state()[1][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_state_goes_on_in_parts_and_the_other_way_round(case: Case) -> None:
    case = unclipped(case)
    through, turns = Driven(case, CPU), [(CPU, CPU), (CPU,), (CPU, CPU, CPU)]
    through.rounds(range(5))
    values, tensors = through.state()
    for number, places in enumerate(turns):
        other = Driven(case, *places)
        other.server.restore(values, tensors)
        assert_equal(other.state()[1], tensors)
        through.at = {}
        through.server.ring.release_all()
        for driven in (other, through):
            driven.rounds(range(5 + 3 * number, 8 + 3 * number))
        values, tensors = other.state()
        assert values == through.state()[0]
        assert_equal(tensors, through.state()[1])


@pytest.mark.parametrize("places", [(APART, CPU), (CPU, APART)], ids=["first", "second"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_of_an_update_only_the_norm_crosses_and_is_read_once(case: Case, places: tuple[torch.device, ...]) -> None:
    """And of a push of which only some numbers cross, these: they lie on the first device."""
    here = Driven(unclipped(case), CPU)
    with apart() as counted:
        there = Driven(unclipped(case), *places)
        for number in range(7):
            for driven in (here, there):
                driven.begin_all(number)
            before, copied = there.server.version, 0
            for worker in driven.turn(number):
                for driven in (here, there):
                    driven.bring(worker)
                counted.clear()
                for driven in (here, there):
                    driven.take(worker)
                copied += counted["copied"]
                assert counted["read"] <= (places[0] is APART)
            updates = there.server.version - before
            some = 4 * len(driven.turn(number)) if case.push.drop else 0
            assert updates <= copied <= updates + some if case.push.drop else copied == updates
        assert there.server.version >= 2
        state = there.state()
    assert state[0] == here.state()[0]
    assert_equal(state[1], here.state()[1])


def test_quantised_pulls_are_the_same_in_parts() -> None:
    case = Case(corrections=CorrectionSettings(quantized=True))
    whole, parts = Driven(unclipped(case), CPU), Driven(unclipped(case), CPU, CPU)
    for driven in (whole, parts):
        driven.rounds(range(6))
    assert torch.equal(parts.server.offered.cpu(), whole.server.offered)
    assert not torch.equal(whole.server.offered, whole.server.parameters)


@pytest.mark.parametrize("fragment", [None, 0, 1, 3])
def test_an_outer_step_is_the_same_in_parts(fragment: int | None) -> None:
    made = []
    for places in ((CPU,), (CPU, CPU)):
        settings = OuterSettings(rate=0.7, momentum=0.9, fragments=4, dtype="bfloat16")
        parameters, moved = zeros(2, *places)
        parameters.copy_(gradient(1))
        moved.copy_(gradient(2))
        outer = OuterStep(settings, parameters)
        made.append(outer.step(outer.moved(moved, fragment), 2, fragment).cpu())
    assert torch.equal(*made)


PUSHES = {
    "bfloat16": PushSettings("bfloat16"), "dropped": PushSettings(drop=0.5), "both": PushSettings("bfloat16", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_a_push_leaves_the_same_behind_in_parts(push: PushSettings) -> None:
    made: list[list[Tensor]] = []
    for places in ((CPU,), (CPU, CPU)):
        driven = Driven(Case(push=push), *places)
        assert driven.server.residuals is not None
        rows = driven.server.residuals.rows
        for worker in range(WORKERS):
            rows[2 * worker].copy_(gradient(7 + worker))
            room = driven.slots.room(worker, rows, 2 * worker)
            assert isinstance(room, Slot)
            compress(gradient(worker), room, a_half)
        made.append([rows.cpu(), driven.slots.values.cpu()])
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)
    assert made[0][0].shape == (2 * WORKERS, SIZE)
    assert bool(on_cpu(made[0][0]).any())
