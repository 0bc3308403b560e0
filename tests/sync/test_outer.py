"""The outer step: that of torch's SGD on what machines have moved, and a mean where it has no momentum."""

from __future__ import annotations

import pytest
import torch

from nmt_async.sync.between.outer import NAME, OuterStep
from nmt_async.sync.between.outer_settings import OuterSettings


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(7, generator=torch.Generator().manual_seed(seed))


def moved(outer: OuterStep, machines: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([outer.moved(machine, torch.empty(7)) for machine in machines]).sum(0)


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


def test_it_goes_on_where_it_was() -> None:
    outer = OuterStep(OuterSettings(4), drawn(0))
    outer.step(drawn(1), 2)
    again = OuterStep(OuterSettings(4), drawn(5))
    again.restore(outer.parameters, {NAME: outer.tensors[NAME].clone()})
    assert torch.equal(again.step(drawn(2), 2), outer.step(drawn(2), 2))
    again.restore(drawn(5), {})
    assert not again.tensors[NAME].any(), "a run that was in another way begins without momentum"
