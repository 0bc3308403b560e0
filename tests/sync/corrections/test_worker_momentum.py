"""A momentum for each worker (DANA): by hand, as Nesterov's with one worker, and through deaths of workers for good."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from corrected_servers import corrected_server
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import (
    CorrectionSettings,
    Hybrid,
    OptimizerSettings,
    ParameterServer,
    Push,
    Schedule,
)
from nmt_async.text.plan import BatchId

pytestmark = pytest.mark.numeric

SIZE = 3
RATE, KEEP = 0.25, 0.5
DESCENT = OptimizerSettings(name="sgd", momentum=KEEP, clip_norm=0.0)
ADAM = OptimizerSettings(name="adam", beta1=KEEP, beta2=0.75, epsilon=1e-3, clip_norm=0.0)
KINDS = ["dana", "dana-slim"]


def server(
    kind: str, workers: int = 2, pushes: int = 1, settings: OptimizerSettings = DESCENT, rate: float = RATE
) -> ParameterServer:
    named = CorrectionSettings(momentum=kind)
    return corrected_server(named, settings, rate, size=SIZE, workers=workers, pushes=pushes)


def push(to: ParameterServer, worker: int, gradient: Tensor, tokens: int = 1) -> None:
    to.push(Push(worker, BatchId(1, 0), to.version, tokens), gradient.clone())


def vector(*values: float) -> Tensor:
    return torch.tensor(values)


def test_dana_zero_by_hand() -> None:
    """γ = 0.5, η = 0.25. v_0 = 4, θ = -1; v_1 = 8, θ = -3; v_0 = 2 + 4 = 6, θ = -4.5."""
    ours = server("dana")
    seen = []
    for worker, slope in ((0, 4.0), (1, 8.0), (0, 4.0)):
        push(ours, worker, vector(slope, 0.0, -slope))
        ours.update()
        seen.append((ours.parameters[0].item(), ours.offered[0].item()))
    assert seen == [(-1.0, -1.0 - 0.125 * 4), (-3.0, -3.0 - 0.125 * 12), (-4.5, -4.5 - 0.125 * 14)]
    assert ours.parameters[2] == 4.5


def test_dana_slim_has_the_look_ahead_of_dana_zero_for_its_parameters() -> None:
    zero, slim = server("dana", 3), server("dana-slim", 3)
    generator = torch.Generator().manual_seed(1)
    for worker in (0, 2, 1, 1, 0, 2, 0):
        gradient = torch.randn(SIZE, generator=generator)
        for each in (zero, slim):
            push(each, worker, gradient)
            each.update()
        torch.testing.assert_close(slim.parameters, zero.offered)
        assert slim.offered.data_ptr() == slim.parameters.data_ptr(), "a pull costs nothing"


def test_an_update_of_several_workers_gives_each_its_part_of_the_clipped_mean() -> None:
    """Sums of 6 and 2 over 4 tokens, clipped from 2 to 1: parts of 0.75 and 0.25."""
    ours = server("dana", 3, pushes=3, settings=OptimizerSettings(name="sgd", momentum=KEEP, clip_norm=1.0))
    push(ours, 0, vector(2.0, 0.0, 0.0), tokens=1)
    push(ours, 2, vector(2.0, 0.0, 0.0), tokens=2)
    push(ours, 0, vector(4.0, 0.0, 0.0), tokens=1)
    assert ours.update().gradient_norm == 2.0
    assert ours.vectors()["worker_momentum"][:, 0].tolist() == [0.75, 0.0, 0.25]
    assert ours.parameters[0] == -RATE
    assert ours.offered[0] == -RATE * 1.5
    push(ours, 0, vector(0.75, 0.0, 0.0))
    ours.update()
    assert ours.vectors()["worker_momentum"][:, 0].tolist() == [1.125, 0.0, 0.25], "who did not push keeps its own"
    assert ours.parameters[0] == -RATE * (1 + 1.125)


def curved(parameters: Tensor) -> Tensor:
    """A gradient: that of a bowl around 2."""
    return vector(1.0, 0.3, 2.0) * (parameters - 2.0)


@pytest.mark.parametrize("pushes", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_with_one_worker_it_is_nesterovs_momentum(kind: str, pushes: int) -> None:
    """What is pulled goes where the parameters of the optimizer sgd with Nesterov go."""
    ours = server(kind, workers=1, pushes=pushes)
    schedule = Schedule(RATE, Quantity(0, "updates"), "none")
    nesterov = ParameterServer(torch.zeros(2, SIZE), Hybrid(pushes), schedule, DESCENT)
    for _ in range(6):
        for _ in range(pushes):
            for each in (ours, nesterov):
                push(each, 0, curved(each.offered), tokens=2)
        ours.update()
        nesterov.update()
        if kind == "dana-slim":
            assert torch.equal(ours.parameters, nesterov.parameters)
        torch.testing.assert_close(ours.offered, nesterov.parameters)


def test_of_adam_it_is_the_first_moment_by_hand() -> None:
    """Worker 0 gives 4, worker 1 gives 2: m = 0.5 · g, divided by 1 - 0.5 for the first of each."""
    ours = server("dana", settings=ADAM)
    push(ours, 0, vector(4.0, 0.0, 0.0))
    ours.update()
    square, moments = 0.25 * 16.0, [2.0, 0.0]
    here = -RATE * (2.0 / 0.5) / (math.sqrt(square / 0.25) + 1e-3)
    assert ours.parameters[0] == pytest.approx(here)
    assert ours.offered[0] == pytest.approx(here * 1.5)
    push(ours, 1, vector(2.0, 0.0, 0.0))
    ours.update()
    square, moments = 0.75 * square + 0.25 * 4.0, [2.0, 1.0]
    scale = math.sqrt(square / (1 - 0.75**2)) + 1e-3
    here -= RATE * (1.0 / 0.5) / scale
    assert ours.parameters[0] == pytest.approx(here)
    assert ours.offered[0] == pytest.approx(here - RATE * 0.5 * (moments[0] / 0.5 + moments[1] / 0.5) / scale)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_with_one_worker_the_step_of_adam_is_adams(name: str) -> None:
    settings = OptimizerSettings(name=name, weight_decay=0.1 * (name == "adamw"), clip_norm=0.5)
    ours = server("dana", 1, settings=settings)
    plain = ParameterServer(torch.zeros(2, SIZE), Hybrid(1), ours.schedule, settings)
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        gradient = torch.randn(SIZE, generator=generator)
        for each in (ours, plain):
            push(each, 0, gradient)
            each.update()
        torch.testing.assert_close(ours.parameters, plain.parameters)


def test_before_the_first_update_a_pull_gives_the_parameters() -> None:
    assert torch.equal(server("dana").offered, torch.zeros(SIZE))


def test_only_pulls_see_the_look_ahead() -> None:
    settings = OptimizerSettings(name="sgd", momentum=KEEP, clip_norm=0.0, smoothing=1.0)
    ours = server("dana", settings=settings)
    push(ours, 0, torch.ones(SIZE))
    ours.update()
    assert not torch.equal(ours.offered, ours.parameters)
    assert torch.equal(ours.state()[1]["parameters"], ours.parameters)
    assert ours.optimizer.average is not None
    assert torch.equal(ours.optimizer.average, ours.parameters)
    buffer = ours.ring.buffers[ours.pull(1)]
    assert torch.equal(buffer, ours.offered)
    held = buffer.clone()
    push(ours, 0, torch.ones(SIZE))
    ours.update()
    assert torch.equal(buffer, held)


def taken_up(ours: ParameterServer, kind: str, workers: int, **settings: Any) -> ParameterServer:
    """Goes on from its state with so many workers."""
    values, tensors = ours.state()
    again = server(kind, workers, **settings)
    again.restore(values, {name: tensor.clone() for name, tensor in tensors.items()})
    return again


@pytest.mark.parametrize("settings", [DESCENT, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [1, 4, 5, 6])
def test_going_on_from_its_state_is_bit_equal_also_in_the_midst_of_a_round(
    kind: str, settings: OptimizerSettings, split: int
) -> None:
    whole, parts = server(kind, 3, 3, settings), server(kind, 3, 3, settings)
    generator = torch.Generator().manual_seed(3)
    for number, worker in enumerate((1, 1, 0, 2, 1, 2, 0, 0, 0)):
        if number == split:
            parts = taken_up(parts, kind, 3, pushes=3, settings=settings)
        gradient = torch.randn(SIZE, generator=generator)
        for each in (whole, parts):
            push(each, worker, gradient)
            if number % 3 == 2:
                each.update()
    assert torch.equal(whole.offered, parts.offered)
    for name, tensor in whole.state()[1].items():
        assert torch.equal(tensor, parts.state()[1][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_workers_go_on_with_the_momentum_and_the_open_round_of_all(kind: str) -> None:
    """Of workers 0 to 3, two stay: worker 2's is worker 0's now, and 3's is 1's; the step of their sum is the same."""
    ours = server(kind, 4, pushes=4)
    for worker, slope in enumerate((4.0, 8.0, 16.0, 32.0)):
        push(ours, worker, vector(slope, 0.0, 0.0))
    ours.update()
    for worker in (3, 1, 2):
        push(ours, worker, vector(4.0, 0.0, 0.0))
    again = taken_up(ours, kind, 2, pushes=4)
    assert torch.equal(again.offered, ours.offered)
    assert again.vectors()["worker_momentum"][:, 0].tolist() == [5.0, 10.0]
    push(ours, 0, vector(4.0, 0.0, 0.0))
    push(again, 0, vector(4.0, 0.0, 0.0))
    ours.update()
    again.update()
    assert again.vectors()["worker_momentum"][:, 0].tolist() == [2.5 + 2.0, 5.0 + 2.0]
    torch.testing.assert_close(again.parameters, ours.parameters)


def test_more_workers_begin_without_momentum() -> None:
    ours = server("dana", 1)
    push(ours, 0, torch.ones(SIZE))
    ours.update()
    again = taken_up(ours, "dana", 3)
    assert torch.equal(again.offered, ours.offered)
    assert again.vectors()["worker_momentum"][:, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pushes", [1, 4])
def test_it_remembers_no_more_vectors_than_are_stated(kind: str, pushes: int) -> None:
    ours = server(kind, 3, pushes)
    for worker in (0, 1, 2, 1):
        push(ours, worker, torch.ones(SIZE))
        if pushes == 1:
            ours.update()
    momentum = ours.corrections.momentum
    assert momentum is not None
    held = 3 + sum(map(len, momentum.parts)) // SIZE + (kind == "dana")
    assert held == CorrectionSettings(momentum=kind).vectors(3, pushes) + 1, "the optimizer's own is not kept"
