"""Workers compute on predicted parameters; everybody else sees those that there are."""

from __future__ import annotations

import pytest
import torch
from corrected_servers import corrected_server

from nmt_async.sync import (
    CorrectionSettings,
    OptimizerSettings,
    ParameterServer,
    Push,
    build_corrections,
)
from nmt_async.sync.corrections.prediction import Prediction
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.text.plan import BatchId

pytestmark = pytest.mark.numeric

SIZE = 3
RATE = 0.5
DESCENT = OptimizerSettings(name="sgd", momentum=0.0, clip_norm=0.0)


def server(predicted: float, settings: OptimizerSettings = DESCENT) -> ParameterServer:
    named = CorrectionSettings(prediction="last-step", predicted=predicted)
    return corrected_server(named, settings, RATE, size=SIZE, staleness=9.0)


def push(to: ParameterServer, gradient: torch.Tensor, worker: int = 0) -> None:
    to.push(Push(worker, BatchId(1, to.version), to.version, tokens=1), gradient)
    to.update()


def test_a_pull_gives_what_the_last_update_leads_to() -> None:
    ours = server(0.75)
    first, second = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, 2.0, 4.0])
    push(ours, first.clone())
    assert torch.equal(ours.parameters, -RATE * first)
    assert torch.equal(ours.offered, -RATE * first * 1.75)
    push(ours, second.clone())
    assert torch.equal(ours.parameters, -RATE * (first + second))
    assert torch.allclose(ours.offered, -RATE * (first + 1.75 * second))
    assert torch.equal(ours.ring.buffers[ours.pull(0)], ours.offered)


def test_without_a_prediction_a_pull_gives_the_parameters() -> None:
    ours = server(0.0)
    push(ours, torch.ones(SIZE))
    assert ours.offered.data_ptr() == ours.parameters.data_ptr()


@pytest.mark.parametrize(
    ("staleness", "ahead"), [(0.75, 1.0), (0.5, 1.0), (0.25, 0.25), (1.2, 1.2), (1.5, 2.0), (3.0, 3.0)]
)
def test_without_a_number_it_is_the_mean_staleness_or_the_nearest_one_above(staleness: float, ahead: float) -> None:
    named = CorrectionSettings(prediction="last-step")
    look_ahead = build_corrections(named, DESCENT, torch.zeros(SIZE), 2, staleness).look_ahead
    assert isinstance(look_ahead, Prediction)
    assert look_ahead.updates == named.updates_ahead(staleness) == ahead
    assert named.vectors(2, 2, staleness) == 2


def test_of_one_worker_nothing_is_predicted_and_a_second_one_begins_with_what_there_is() -> None:
    named = CorrectionSettings(prediction="last-step")
    assert build_corrections(named, DESCENT, torch.zeros(SIZE), 1, 0.0).look_ahead is None
    assert named.vectors(1, 1, 0.0) == 0
    alone, two = server(0.0), server(1.0)
    push(alone, torch.ones(SIZE))
    two.restore(*alone.state())
    assert torch.equal(two.offered, alone.parameters)
    push(two, torch.ones(SIZE))
    assert torch.equal(two.offered, -RATE * torch.full((SIZE,), 3.0))


def test_before_the_first_update_there_is_nothing_to_predict_from() -> None:
    assert torch.equal(server(3.0).offered, torch.zeros(SIZE))


def test_a_pull_that_somebody_reads_stays_as_it_is() -> None:
    ours = server(1.0)
    push(ours, torch.ones(SIZE))
    held = ours.ring.buffers[ours.pull(7)]
    before = held.clone()
    push(ours, torch.full((SIZE,), 5.0))
    assert torch.equal(held, before)
    assert not torch.equal(ours.offered, before)


def test_one_update_ahead_of_plain_momentum_is_nesterovs() -> None:
    """With θ' = θ - step, the gradient at θ + μ (θ - θ_before) and θ_next = θ' - η g is Nesterov's of 1983."""
    keep = 0.9
    curvature = torch.tensor([1.0, 0.2, 0.05])
    ours = server(keep, settings=OptimizerSettings(name="sgd", momentum=keep, nesterov=False, clip_norm=0.0))
    ahead = ours.corrections.look_ahead
    assert isinstance(ahead, Prediction)
    ahead.parameters.fill_(1.0)
    ahead.before.fill_(1.0)
    ours.ring.current.fill_(1.0)
    here, velocity = torch.ones(SIZE), torch.zeros(SIZE)
    for _ in range(5):
        push(ours, curvature * ours.offered)
        velocity = keep * velocity - RATE * curvature * (here + keep * velocity)
        here = here + velocity
        torch.testing.assert_close(ours.parameters, here)


def test_going_on_from_its_state_is_bit_equal_to_never_having_stopped() -> None:
    gradients = torch.randn(6, SIZE, generator=torch.Generator().manual_seed(1))
    adam = OptimizerSettings()
    whole, parts = server(0.5, settings=adam), server(0.5, settings=adam)
    for step, gradient in enumerate(gradients):
        if step == 3:
            values, tensors = parts.state()
            stored = {name: tensor.clone() for name, tensor in tensors.items()}
            parts = server(0.5, settings=adam)
            parts.restore(values, stored)
        push(whole, gradient.clone())
        push(parts, gradient.clone())
        assert torch.equal(whole.offered, parts.offered)
    assert torch.equal(whole.parameters, parts.parameters)


def test_the_average_is_of_the_parameters_and_not_of_predictions() -> None:
    settings = OptimizerSettings(smoothing=0.3)
    ours, alone = server(2.0, settings=settings), torch.zeros(SIZE)
    optimizer = FlatOptimizer(alone, settings)
    for number in range(4):
        gradient = torch.full((SIZE,), 1.0 + number)
        push(ours, gradient.clone())
        optimizer.step(alone, gradient, 1, RATE)
    assert ours.optimizer.average is not None
    assert optimizer.average is not None
    torch.testing.assert_close(ours.optimizer.average, optimizer.average)
