"""Error feedback for delay: by hand for a delay of one update and of two, and nothing without delay."""

from __future__ import annotations

import pytest
import torch
from corrected_servers import corrected_server
from torch import Tensor

from nmt_async.sync import CorrectionSettings, OptimizerSettings, ParameterServer, Push
from nmt_async.text.plan import BatchId

pytestmark = pytest.mark.numeric

RATE = 0.5
DESCENT = OptimizerSettings(name="sgd", momentum=0.0, clip_norm=0.0)


def server(share: float, settings: OptimizerSettings = DESCENT, pushes: int = 1, workers: int = 4) -> ParameterServer:
    named = CorrectionSettings(feedback=share)
    return corrected_server(named, settings, RATE, size=2, workers=workers, pushes=pushes, staleness=1.0)


def push(to: ParameterServer, gradient: Tensor, version: int, tokens: int = 1) -> None:
    to.push(Push(0, BatchId(1, 0), version, tokens), gradient.clone())


GRADIENTS = torch.tensor([[1.0, 8.0], [2.0, -4.0], [4.0, 2.0], [-8.0, 1.0]])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_after_a_delay_of_one_update_the_rule_is_that_of_the_paper(share: float) -> None:
    """θ - u_t - c (u_t - u_(t-1)), from the second update on: the first is of the first parameters."""
    ours = server(share)
    expected, before = torch.zeros(2), torch.zeros(2)
    for number, gradient in enumerate(GRADIENTS):
        push(ours, gradient, max(0, number - 1))
        ours.update()
        step = RATE * gradient
        expected = expected - step - (share * (step - before) if number else 0.0)
        before = step
        torch.testing.assert_close(ours.parameters, expected)
    # In numbers, whole: 0.5 · (1 + (2 + 1) + (4 + 2) + (-8 - 12)) and 0.5 · (8 + (-4 - 12) + (2 + 6) + (1 - 1)).
    if share == 1.0:
        assert ours.parameters.tolist() == [5.0, 0.0]


def test_what_is_fed_back_makes_up_for_what_each_step_was_wrong_by() -> None:
    """With a delay of τ, all steps up to u_t are what they should have been, and u_t stands for the τ that are not."""
    for delay in (1, 2, 3):
        ours = server(1.0)
        for number, gradient in enumerate(GRADIENTS):
            push(ours, gradient, max(0, number - delay))
            ours.update()
        # A step is fed back by its own age, which is less than the delay at the beginning.
        early = sum((delay - min(number, delay)) * (step - before) for number, (step, before) in enumerate(pairs()))
        wanted = sum(GRADIENTS) + delay * GRADIENTS[-1] - early
        torch.testing.assert_close(ours.parameters, -RATE * wanted)


def pairs() -> list[tuple[Tensor, Tensor]]:
    """Each gradient, and the one before it; of the first, 0."""
    return list(zip(GRADIENTS, [torch.zeros(2), *GRADIENTS[:-1]], strict=True))


def test_of_pushes_of_several_ages_the_mean_by_tokens_counts() -> None:
    """3 tokens of a fresh push and 1 of one that is two updates old: half an update old."""
    ours = server(1.0, pushes=2)
    for _ in range(2):
        push(ours, torch.tensor([8.0, 0.0]), ours.version, tokens=2)
        push(ours, torch.tensor([8.0, 0.0]), ours.version, tokens=2)
        ours.update()
    before = ours.parameters.clone()
    push(ours, torch.tensor([3.0, 1.0]), 2, tokens=3)
    push(ours, torch.tensor([1.0, 3.0]), 0, tokens=1)
    update = ours.update()
    assert update.staleness == (0, 2)
    step, last = RATE * torch.tensor([1.0, 1.0]), RATE * torch.tensor([4.0, 0.0])
    torch.testing.assert_close(ours.parameters, before - step - 0.5 * (step - last))


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "adan", "lion", "sgd"])
def test_without_delay_nothing_changes_with_any_optimizer(name: str) -> None:
    settings = OptimizerSettings(name=name, smoothing=0.3, weight_decay=0.1)
    fed, plain = server(1.0, settings), server(0.0, settings)
    for gradient in GRADIENTS:
        for each in (fed, plain):
            push(each, gradient, each.version)
            each.update()
    for key, tensor in plain.vectors().items():
        assert torch.equal(fed.vectors()[key], tensor), key


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "adan", "lion", "sgd"])
@pytest.mark.parametrize("read", [False, True])
def test_it_acts_on_the_whole_step_of_any_optimizer_and_the_average_follows(name: str, read: bool) -> None:
    """Also where somebody still reads the parameters before, so that the new ones lie in another buffer."""
    settings = OptimizerSettings(name=name, smoothing=0.3, weight_decay=0.1)
    fed = server(1.0, settings)
    average, last = fed.parameters.clone(), torch.zeros(2)
    for number, gradient in enumerate(GRADIENTS):
        before, alone = fed.parameters.clone(), server(0.0, settings)
        values, tensors = fed.state()
        alone.restore(values, {key: tensor.clone() for key, tensor in tensors.items()})
        if read:
            fed.release(number - 1)
            fed.pull(number)
        for each in (alone, fed):
            each.push(Push(9, BatchId(1, 0), max(0, number - 1), 1), gradient.clone())
            each.update()
        step = alone.parameters - before
        expected = alone.parameters + ((step - last) if number else 0.0)
        torch.testing.assert_close(fed.parameters, expected)
        assert fed.optimizer.average is not None
        weight = max(0.3, 1 - (number + 2.0) / (number + 11.0))
        average = average.lerp(fed.parameters, weight)
        torch.testing.assert_close(fed.optimizer.average, average)
        last = step
