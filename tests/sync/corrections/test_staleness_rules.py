"""What a stale gradient is worth, by hand, and that what is not stale is never touched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import (
    Applied,
    Arrival,
    Asynchronous,
    Correction,
    Corrections,
    CorrectionSettings,
    OptimizerSettings,
    ParameterServer,
    Push,
    Schedule,
    build_corrections,
)
from nmt_async.sync.corrections.by_age import Decayed, Scaled
from nmt_async.sync.corrections.delay_compensated import DelayCompensated
from nmt_async.sync.corrections.gap_aware import GapAware
from nmt_async.text.plan import BatchId

ALL = [
    CorrectionSettings("scale"), CorrectionSettings("decay"), CorrectionSettings("gap-aware"),
    CorrectionSettings("delay-compensated"), CorrectionSettings("delay-compensated", adaptive=True),
]  # fmt: skip


def built(settings: CorrectionSettings, initial: Tensor, workers: int = 3) -> Corrections:
    return build_corrections(settings, OptimizerSettings(), initial, workers, staleness=workers - 1.0)


def vector(*values: float) -> Tensor:
    return torch.tensor(values)


def arrival(age: int, gradient: Tensor, current: Tensor, pulled: Tensor, tokens: int = 1) -> Arrival:
    return Arrival(age, tokens, gradient, current, pulled)


def of_age(correction: Correction, age: int) -> float | Tensor:
    return correction.weight(arrival(age, vector(1.0), vector(2.0), vector(2.5)))


def test_scaling_divides_by_the_age_beyond_its_grace() -> None:
    assert [of_age(Scaled(), age) for age in range(4)] == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert [of_age(Scaled(grace=1), age) for age in range(4)] == [1.0, 1.0, 1 / 2, 1 / 3], "1 / τ as Zhang et al."


def test_decay_is_half_a_cosine_and_an_exponential_and_ends_at_its_cutoff() -> None:
    correction = Decayed(decay=0.25, cutoff=4.0)
    wanted = [1.0, (2 + math.sqrt(2)) / 4 * math.exp(-0.25), 0.5 * math.exp(-0.5),
              (2 - math.sqrt(2)) / 4 * math.exp(-0.75), 0.0, 0.0]  # fmt: skip
    assert [of_age(correction, age) for age in range(6)] == pytest.approx(wanted, abs=1e-15)
    assert of_age(correction, 0) == 1.0
    assert of_age(correction, 4) == 0.0


def test_gap_aware_divides_by_one_and_the_way_in_typical_steps() -> None:
    """One update at the rate 0.5 moved the parameters by 0.5 and 0.25: by 1 and 0.5 for each unit of the rate.

    At the highest rate so far, 2, a step would be 2 and 1. A way of 4 and 1 is then 2 and 1 steps.
    """
    correction = GapAware(torch.zeros(3))
    correction.applied(Applied(vector(0.0, 0.0, 0.0), vector(0.5, -0.25, 0.0), rate=0.5, staleness=0.0))
    correction.tensors["gap_rate"].fill_(2.0)
    weight = correction.weight(arrival(1, torch.ones(3), vector(4.0, 0.0, 7.0), vector(0.0, 1.0, 7.0)))
    torch.testing.assert_close(weight, vector(1 / 3, 1 / 2, 1.0))


def test_the_typical_step_of_gap_aware_is_a_running_mean_of_squares_at_the_highest_rate() -> None:
    correction = GapAware(torch.zeros(1))
    for rate, after in ((1.0, 3.0), (0.0, 9.0), (0.5, 2.0)):  # at the rate 0 nothing can be told
        correction.applied(Applied(vector(0.0), vector(after), rate, staleness=0.0))
    mean = (0.999 * 0.001 * 9.0 + 0.001 * 16.0) / (1 - 0.999**2)
    weight = correction.weight(arrival(3, vector(1.0), vector(5.0), vector(0.0)))
    torch.testing.assert_close(weight, vector(1 / (1 + 5 / math.sqrt(mean))), rtol=1e-4, atol=0.0)


def test_delay_compensation_adds_the_square_of_the_gradient_per_token_times_the_way() -> None:
    """g = (2, -1) for each of 3 tokens, λ = 0.5, and the parameters went by (0.25, 4)."""
    correction = DelayCompensated(torch.zeros(2), strength=0.5, adaptive=False)
    gradient = vector(6.0, -3.0)
    weight = correction.weight(arrival(2, gradient, vector(1.25, 4.0), vector(1.0, 0.0), tokens=3))
    torch.testing.assert_close(weight * gradient, 3 * vector(2 + 0.5 * 4 * 0.25, -1 + 0.5 * 1 * 4))


def test_adaptive_compensation_divides_by_the_running_magnitude() -> None:
    """Two pushes of g = 2 and 4 per token: s = 0.95 · 0.05 · 4 + 0.05 · 16 = 0.99."""
    correction = DelayCompensated(torch.zeros(1), strength=2.0, adaptive=True)
    assert correction.weight(arrival(0, vector(4.0), vector(0.0), vector(0.0), tokens=2)) == 1.0
    weight = correction.weight(arrival(1, vector(8.0), vector(0.5), vector(0.0), tokens=2))
    torch.testing.assert_close(weight * 4.0, vector(4 + 2 / math.sqrt(0.99) * 16 * 0.5))


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_a_fresh_push_keeps_its_whole_weight(settings: CorrectionSettings) -> None:
    (correction,) = built(settings, torch.zeros(2)).each
    correction.applied(Applied(torch.zeros(2), torch.ones(2), rate=1.0, staleness=0.0))
    assert correction.weight(arrival(0, torch.ones(2), torch.ones(2), torch.zeros(2))) == 1.0


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_a_rule_remembers_as_many_vectors_as_it_says(settings: CorrectionSettings) -> None:
    (correction,) = built(settings, torch.zeros(7)).each
    assert sum(tensor.numel() == 7 for tensor in correction.tensors.values()) == settings.vectors(3, 1)
    assert correction.looks_at_parameters == settings.looks_at_parameters


def test_no_rule_is_no_correction() -> None:
    assert built(CorrectionSettings(), torch.zeros(2)) == Corrections([])
    assert CorrectionSettings().vectors(3, 4) == 0


def pushes(settings: CorrectionSettings, still: bool, workers: int = 3) -> ParameterServer:
    """A server after nine pushes of workers that take turns, so that each is two updates old from the third on."""
    buffers = torch.ones(workers + 1, 5)
    schedule = Schedule(0.0 if still else 0.1, Quantity(0, "updates"), "none")
    server = ParameterServer(
        buffers, Asynchronous(), schedule, OptimizerSettings(), corrections=built(settings, buffers[0])
    )
    for worker in range(workers):
        server.pull(worker)
    pulled = dict.fromkeys(range(workers), 0)
    for number in range(9):
        worker = number % workers
        gradient = torch.randn(5, generator=torch.Generator().manual_seed(number))
        server.push(Push(worker, BatchId(1, number), pulled[worker], 4, loss=1.0, gradient_norm=1.0), gradient)
        assert server.update().staleness == (min(number, workers - 1),)
        pulled[worker] = server.version
        server.pull(worker)
    return server


@pytest.mark.parametrize(("rule", "workers", "still"), [
    *((settings, 1, False) for settings in ALL),
    (CorrectionSettings("gap-aware"), 3, True), (CorrectionSettings("delay-compensated"), 3, True),
])  # fmt: skip
def test_without_staleness_nothing_changes_and_looking_back_without_a_way_neither(
    rule: CorrectionSettings, workers: int, still: bool
) -> None:
    one, other = pushes(rule, still, workers), pushes(CorrectionSettings(), still, workers)
    for name, tensor in other.vectors().items():
        assert torch.equal(one.vectors()[name], tensor), name


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_with_staleness_something_changes(settings: CorrectionSettings) -> None:
    assert not torch.equal(pushes(settings, still=False).parameters, pushes(CorrectionSettings(), False).parameters)


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_what_is_remembered_comes_back_from_a_state(settings: CorrectionSettings) -> None:
    server = pushes(settings, still=False)
    values, tensors = server.state()
    buffers = torch.zeros(4, 5)
    again = ParameterServer(
        buffers, Asynchronous(), server.schedule, OptimizerSettings(),
        corrections=built(settings, buffers[0]),
    )  # fmt: skip
    again.restore(values, {name: tensor.clone() for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        assert torch.equal(again.state()[1][name], tensor), name
