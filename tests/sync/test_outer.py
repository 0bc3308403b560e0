"""The outer step: that of torch's SGD on what machines have moved, and a mean where it has no momentum."""

from __future__ import annotations

import pytest
import torch

from nmt_async.sync.between.outer import NAME, OuterStep, summed
from nmt_async.sync.between.outer_settings import OuterSettings


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(7, generator=torch.Generator().manual_seed(seed))


def moved(outer: OuterStep, machines: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([outer.moved(machine) for machine in machines]).sum(0)


def test_without_momentum_and_at_a_rate_of_1_it_is_the_mean() -> None:
    outer = OuterStep(OuterSettings(4, 1.0, 0.0), drawn(0))
    machines = [drawn(seed) for seed in (1, 2, 3)]
    mean = outer.step(moved(outer, machines), 3)
    assert mean == pytest.approx(torch.stack(machines).mean(0), abs=1e-6)
    assert not outer.tensors


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_torch_s_sgd_with_nesterov_momentum(momentum: float) -> None:
    outer = OuterStep(OuterSettings(4, 0.7, momentum), drawn(0))
    theirs = torch.nn.Parameter(drawn(0))
    optimizer = torch.optim.SGD([theirs], lr=0.7, momentum=momentum, nesterov=momentum > 0)
    for turn in range(4):
        machines = [theirs.detach() + 0.1 * drawn(10 * turn + machine) for machine in range(2)]
        theirs.grad = torch.stack([theirs.detach() - machine for machine in machines]).mean(0)
        optimizer.step()
        assert outer.step(moved(outer, machines), 2) == pytest.approx(theirs.detach(), abs=1e-6)


def test_fragments_are_the_parts_of_one_step() -> None:
    whole, parts = (OuterStep(OuterSettings(6, fragments=count), drawn(0)) for count in (1, 3))
    for turn in range(3):
        machine = whole.parameters + 0.1 * drawn(turn + 1)
        whole.step(whole.moved(machine), 1)
        for fragment in range(3):
            moved = parts.moved(machine, fragment)
            assert len(moved) in (2, 3)
            parts.step(moved, 1, fragment)
        assert torch.equal(parts.parameters, whole.parameters)
        assert torch.equal(parts.tensors[NAME], whole.tensors[NAME])


def test_all_of_several_fragments_become_the_mean() -> None:
    outer = OuterStep(OuterSettings(6, fragments=3, dtype="bfloat16"), drawn(0))
    machines = [drawn(seed) for seed in (1, 2)]
    moved = [outer.moved(machine) for machine in machines]
    assert moved[0].dtype is torch.float32, "this one is exact"
    outer.step(summed(moved), 2)
    assert outer.parameters == pytest.approx(torch.stack(machines).mean(0), abs=1e-6)
    assert not outer.tensors[NAME].any()


def test_16_bits_are_summed_in_32_and_rounded_once() -> None:
    vectors = [(1000.0 * drawn(seed)).bfloat16() for seed in range(5)]
    total = torch.stack(vectors).double().sum(0)
    assert summed(vectors).dtype is torch.bfloat16
    assert torch.equal(summed(vectors), total.bfloat16())
    outer = OuterStep(OuterSettings(4, dtype="bfloat16"), drawn(0))
    moved = outer.moved(drawn(1))
    assert moved.dtype is torch.bfloat16
    assert moved.float() == pytest.approx(drawn(0) - drawn(1), rel=2**-8)
    assert outer.crossing(None) == 0.5


def test_fragments_share_the_updates_evenly() -> None:
    with pytest.raises(ValueError, match="5 fragments do not share the 16 updates"):
        OuterSettings(16, fragments=5)


def test_it_goes_on_where_it_was() -> None:
    outer = OuterStep(OuterSettings(4), drawn(0))
    outer.step(drawn(1), 2)
    again = OuterStep(OuterSettings(4), drawn(5))
    again.restore(outer.parameters, {NAME: outer.tensors[NAME].clone()})
    assert torch.equal(again.step(drawn(2), 2), outer.step(drawn(2), 2))
    again.restore(drawn(5), {})
    assert not again.tensors[NAME].any(), "a run that was in another way begins without momentum"
