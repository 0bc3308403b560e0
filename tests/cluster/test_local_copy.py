"""What a worker does with a copy of the parameters of its own, and that it comes out alike wherever it is done."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from nmt_async.cluster.local_copy import LocalCopy, ahead
from nmt_async.cluster.worker import Worker
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.dropping import largest
from nmt_async.sync.compression.error_feedback import Residuals, compress
from nmt_async.sync.compression.message import Slot, Slots, add_to, form_of
from nmt_async.sync.compression.settings import LocalGradients, PushSettings


def layout() -> FlatLayout:
    """A matrix of 2 x 3 at 0, and a vector of 2 at 16."""
    return FlatLayout(nn.Linear(3, 2))


def moved(residual: list[tuple[int, float]], rate: float, settings: LocalGradients) -> dict[int, float]:
    """By how much each parameter is moved, where it is; a push has ten tokens."""
    vector, parameters = torch.zeros(layout().size), torch.ones(layout().size)
    for place, value in residual:
        vector[place] = value
    ahead(parameters, vector, rate, 10, settings, layout())
    return {place: float(value) - 1.0 for place, value in enumerate(parameters) if value != 1.0}


def test_gradient_descent_is_ahead_by_its_own_step() -> None:
    """0.5 * 6 / (3 pushes of 10 tokens), and ten times as far with momentum 0.9."""
    assert moved([(1, 6.0)], 0.5, LocalGradients(3, 1.0)) == {1: pytest.approx(-0.1)}
    assert moved([(1, 6.0)], 0.5, LocalGradients(3, 10.0)) == {1: pytest.approx(-1.0, rel=1e-5)}


def test_other_optimizers_are_one_step_ahead_in_each_matrix() -> None:
    """The root mean square of 3 and 4 among six numbers is 5 / sqrt(6); the vector's is 1 / sqrt(2)."""
    found = moved([(0, 3.0), (4, -4.0), (17, 1e-6)], 0.01, LocalGradients(3))
    length = 5 / math.sqrt(6)
    assert found == {
        0: pytest.approx(-0.03 / length, rel=1e-4), 4: pytest.approx(0.04 / length, rel=1e-4),
        17: pytest.approx(-0.01 * math.sqrt(2), rel=1e-4),
    }  # fmt: skip


@pytest.mark.parametrize("settings", [LocalGradients(3), LocalGradients(3, 1.0)], ids=str)
def test_without_a_residual_or_a_rate_nothing_is_moved(settings: LocalGradients) -> None:
    assert moved([], 0.5, settings) == {}
    assert moved([(0, 3.0)], 0.0, settings) == {}


def test_a_copy_begins_anew_at_each_pull() -> None:
    copy = LocalCopy(layout(), torch.device("cpu"), PushSettings(drop=0.5, local_gradients=LocalGradients(1, 1.0)))
    pulled, residual = torch.randn(layout().size), torch.ones(layout().size)
    for _ in range(2):
        copy.begin(pulled, 0.5, 10, residual)
        assert torch.allclose(copy.vector, pulled - 0.05)
    copy.begin(pulled, 0.5, 10, None)
    assert torch.equal(copy.vector, pulled)


def test_sent_and_unsent_gradients_together_move_the_copy_as_whole_ones_move_a_plain_run() -> None:
    """The identity behind it: with gradient descent, parameters after all that was sent, moved by the residual."""
    push = PushSettings(drop=0.9, local_gradients=LocalGradients(1, 1.0))
    size, rate, tokens = layout().size, 0.25, 8
    residuals, slots = Residuals(torch.zeros(2, size)), Slots.of(form_of(push, size), 1)
    server, plain = torch.zeros(size), torch.zeros(size)
    for seed in range(6):
        gradient = torch.randint(-99, 99, (size,), generator=torch.Generator().manual_seed(seed)).float()
        plain -= rate * gradient / tokens
        room = slots.room(0, residuals.rows, residuals.row(0))
        assert isinstance(room, Slot)
        pick = partial(largest, drop=0.9, most=slots.form.columns, generator=torch.Generator().manual_seed(1))
        sent = torch.zeros(size)
        add_to(sent, slots.message(0, compress(gradient, room, pick).entries))
        residuals.accepted(0)
        server -= rate * sent / tokens
        assert not torch.equal(server, plain)
        copy = server.clone()
        ahead(copy, residuals.before(0), rate, tokens, LocalGradients(1, 1.0), layout())
        assert torch.equal(copy, plain)


def gradient_of(
    training, push: PushSettings, rate: float, before: float, parameters: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What crosses, and what is left, of one gradient on a residual that is ``before`` everywhere but in gaps."""
    worker = Worker(training.model(0.2), 5, 0.1, torch.device("cpu"), push=push)
    initial = worker.layout.gather(training.model())
    vector = initial.clone() if parameters is None else parameters
    slots, rows = Slots.of(worker.form, 1), torch.zeros(2, worker.layout.size)
    for view in worker.layout.views(rows[0]):
        view.fill_(before)
    room = slots.room(0, rows, 0)
    computed = worker.compute(vector, room, [training.data.batch(range(6))], (1, 0), rate=rate)
    message = slots.message(0, computed.entries)
    assert parameters is not None or torch.equal(vector, initial), "what was pulled is read only"
    return torch.cat([message.indices, message.values]), rows[1]


def test_a_worker_computes_on_what_its_residual_has_moved(training) -> None:
    plain = PushSettings(drop=0.9)
    local = replace(plain, local_gradients=LocalGradients(2))
    same = [gradient_of(training, local, 0.0, 0.5), gradient_of(training, plain, 0.1, 0.5)]
    assert all(torch.equal(one, other) for one, other in zip(*same, strict=True)), "a rate of 0 changes nothing"
    same = [gradient_of(training, local, 0.1, 0.0), gradient_of(training, plain, 0.1, 0.0)]
    assert all(torch.equal(one, other) for one, other in zip(*same, strict=True)), "nothing was left behind"
    other = gradient_of(training, local, 0.1, 0.5)[1]
    assert not torch.equal(other, gradient_of(training, plain, 0.1, 0.5)[1])
    assert torch.equal(other, gradient_of(training, local, 0.1, 0.5)[1])
    vector = (worker := training.worker()).layout.gather(training.model())
    residual = torch.zeros_like(vector)
    for view in worker.layout.views(residual):
        view.fill_(0.5)
    ahead(vector, residual, 0.1, training.data.batch(range(6)).target_tokens, LocalGradients(2), worker.layout)
    assert torch.equal(other, gradient_of(training, plain, 0.0, 0.5, vector)[1])
