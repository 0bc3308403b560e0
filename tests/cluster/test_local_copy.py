"""What a worker does with a copy of the parameters of its own, and that it comes out alike wherever it is done."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from wrapped_model import WrappedModel

from nmt_async.cluster.local_copy import LocalCopy, ahead
from nmt_async.cluster.worker import Worker
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.dropping import largest
from nmt_async.sync.compression.error_feedback import Residuals, compress
from nmt_async.sync.compression.message import Slot, Slots, add_to, form_of
from nmt_async.sync.compression.settings import LocalGradients, PushSettings
from nmt_async.sync.optimizers.settings import OptimizerSettings


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


def local(name: str, **constants) -> PushSettings:
    optimizer = OptimizerSettings(name=name, momentum=0.0, nesterov=False, **{"clip_norm": 0.0, **constants})
    return PushSettings(local_optimizer=optimizer)


def sum_of(
    training, push: PushSettings, rate: float, parts: list, parameters: Tensor, dropout: float = 0.0, **changes
) -> Tensor:
    """What one push sums."""
    worker = Worker(training.model(dropout), 5, 0.1, torch.device("cpu"), push=push)
    gradient = torch.zeros(worker.layout.size)
    worker.compute(parameters, gradient, parts, (1, 0), rate=rate, **changes)
    return gradient


@pytest.fixture(scope="module")
def parts(training) -> list:
    """Of one push, of different sizes."""
    return [training.data.batch(range(6)), training.data.batch(range(6, 16)), training.data.batch(range(16, 20))]


@pytest.fixture(scope="module")
def initial(training) -> Tensor:
    return training.worker().layout.gather(training.model())


def test_each_part_is_computed_on_what_the_parts_before_it_have_stepped(training, parts: list, initial: Tensor) -> None:
    """The sum of g_1(θ) and g_2(θ - η g_1 / t_1) and so on, by gradient descent."""
    parameters, expected = initial.clone(), torch.zeros_like(initial)
    for part in parts:
        gradient = sum_of(training, PushSettings(), 0.0, [part], parameters)
        expected += gradient
        parameters -= 0.3 * gradient / part.target_tokens
    found = sum_of(training, local("sgd"), 0.3, parts, initial)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, sum_of(training, PushSettings(), 0.3, parts, initial), atol=1e-2)


def test_the_local_step_is_clipped_as_the_servers_is(training, parts: list, initial: Tensor) -> None:
    gradient = sum_of(training, PushSettings(), 0.0, parts[:1], initial)
    parameters = initial - 0.3 * 0.01 * gradient / torch.linalg.vector_norm(gradient)
    expected = gradient + sum_of(training, PushSettings(), 0.0, parts[1:2], parameters)
    found = sum_of(training, local("sgd", clip_norm=0.01), 0.3, parts[:2], initial)
    assert torch.allclose(found, expected, atol=1e-5)


def test_adams_first_step_is_one_of_the_rate(training, parts: list, initial: Tensor) -> None:
    gradient = sum_of(training, PushSettings(), 0.0, parts[:1], initial)
    expected = gradient + sum_of(training, PushSettings(), 0.0, parts[1:2], initial - 0.01 * gradient.sign())
    found = sum_of(training, local("adam", epsilon=1e-20), 0.01, parts[:2], initial)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_one_part_or_a_rate_of_0_changes_nothing(training, parts: list, initial: Tensor, name: str) -> None:
    def plain(parts: list) -> Tensor:
        return sum_of(training, PushSettings(), 0.1, parts, initial, 0.2)

    assert torch.equal(sum_of(training, local(name), 0.1, parts[:1], initial, 0.2), plain(parts[:1]))
    assert torch.equal(sum_of(training, local(name), 0.0, parts, initial, 0.2), plain(parts))
    assert not torch.equal(sum_of(training, local(name), 0.1, parts, initial, 0.2), plain(parts))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_push_does_not_depend_on_what_the_worker_did_before(training, parts: list, initial: Tensor, name) -> None:
    worker = Worker(training.model(0.2), 5, 0.1, torch.device("cpu"), push=local(name))
    found = []
    for _ in range(2):
        gradient = torch.zeros_like(initial)
        worker.compute(initial, gradient, parts, (1, 0), rate=0.1)
        worker.compute(initial + 0.1, torch.zeros_like(initial), parts[::-1], (1, 1), rate=0.2)
        found.append(gradient)
    assert torch.equal(*found)


def test_a_push_that_memory_did_not_hold_begins_anew_from_what_was_pulled(training, parts: list, initial) -> None:
    """The second part does not fit, when the copy has been stepped already: it is computed in as many pieces as in a
    replay, which knows their number from the beginning."""

    class Full(WrappedModel):
        def hidden(self, batch):
            if len(batch) > 6:
                raise torch.OutOfMemoryError("it is full")
            return self.model.hidden(batch)

    push = local("adam")
    worker = Worker(Full(training.model(0.2)), 5, 0.1, torch.device("cpu"), push=push)
    gradient = torch.zeros_like(initial)
    computed = worker.compute(initial, gradient, parts, (1, 0), rate=0.1)
    assert computed.pieces == 2 * len(parts)
    assert torch.equal(gradient, sum_of(training, push, 0.1, parts, initial, 0.2, pieces=2))
