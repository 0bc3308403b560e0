"""Workers compute on quantised parameters, and no part of an update is lost by that."""

from __future__ import annotations

import torch
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import (
    CorrectionSettings,
    Hybrid,
    OptimizerSettings,
    ParameterServer,
    Push,
    Schedule,
    build_corrections,
)
from nmt_async.text.plan import BatchId

SIZE = 5
RATE = 0.5
DESCENT = OptimizerSettings(name="sgd", momentum=0.0, clip_norm=0.0)


def halves(vector: Tensor) -> None:
    """A quantisation to multiples of a half."""
    vector.mul_(2.0).round_().div_(2.0)


def server(settings: CorrectionSettings, initial: Tensor, workers: int = 2) -> ParameterServer:
    buffers = torch.zeros(workers + 1, SIZE)
    buffers[0].copy_(initial)
    corrections = build_corrections(settings, DESCENT, buffers[0], workers, 1.0, halves)
    schedule = Schedule(RATE, Quantity(0, "updates"), "none")
    return ParameterServer(buffers, Hybrid(1), schedule, DESCENT, corrections=corrections)


def push(to: ParameterServer, gradient: Tensor) -> None:
    to.push(Push(0, BatchId(1, to.version), to.version, tokens=1), gradient.clone())
    to.update()


def gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SIZE, generator=generator) * 0.3 for _ in range(20)]


def test_pulls_are_what_feeding_the_error_back_gives() -> None:
    """The recursion of the work, written out, beside the server's sum of all updates."""
    initial = torch.tensor([0.1, -0.4, 0.26, 1.0, 0.0])
    ours = server(CorrectionSettings(quantized=True), initial)
    quantised = initial.clone()
    halves(quantised)
    error = initial - quantised
    assert torch.equal(ours.offered, quantised)
    for gradient in gradients():
        push(ours, gradient)
        wanted = quantised + error - RATE * gradient
        quantised = wanted.clone()
        halves(quantised)
        error = wanted - quantised
        assert torch.equal(ours.offered, quantised)
        assert torch.equal(ours.ring.buffers[ours.pull(1)], quantised)
        ours.release(1)
        assert torch.allclose(ours.parameters, quantised + error, atol=1e-6)


def test_small_steps_add_up_until_they_reach_the_next_level() -> None:
    ours = server(CorrectionSettings(quantized=True), torch.zeros(SIZE))
    for _ in range(6):
        push(ours, torch.full((SIZE,), -0.1))
    assert torch.equal(ours.offered, torch.full((SIZE,), 0.5))


def test_what_is_predicted_is_quantised_too() -> None:
    ours = server(CorrectionSettings(quantized=True, prediction="last-step", predicted=2.0), torch.zeros(SIZE))
    for gradient in gradients()[:3]:
        before = ours.parameters.clone()
        push(ours, gradient)
        expected = ours.parameters + 2.0 * (ours.parameters - before)
        halves(expected)
        assert torch.equal(ours.offered, expected)


def test_a_server_goes_on_where_its_state_was_taken() -> None:
    initial = gradients()[0]
    for settings in (
        CorrectionSettings(quantized=True),
        CorrectionSettings(quantized=True, prediction="last-step", predicted=1.0),
    ):
        ours, other = server(settings, initial), server(settings, torch.zeros(SIZE))
        for gradient in gradients()[:5]:
            push(ours, gradient)
        values, tensors = ours.state()
        other.restore(values, {name: tensor.clone() for name, tensor in tensors.items()})
        for gradient in gradients()[5:]:
            assert torch.equal(ours.offered, other.offered)
            push(ours, gradient)
            push(other, gradient)
        assert torch.equal(ours.parameters, other.parameters)
        assert not torch.equal(ours.parameters, ours.offered)


def test_the_vectors_it_needs_are_counted() -> None:
    plain, ours = CorrectionSettings(), CorrectionSettings(quantized=True)
    assert ours.vectors(2, 1) == plain.vectors(2, 1) + 1
    predicted = CorrectionSettings(quantized=True, prediction="last-step", predicted=1.0)
    assert predicted.vectors(2, 1) == 2  # the parameters, and those before; pulls have the ring
