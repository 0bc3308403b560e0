"""The parameter server: how it answers pushes, and what its updates are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.quantity import Quantity
from nmt_async.sync import (
    Arrival,
    Asynchronous,
    Correction,
    Corrections,
    Hybrid,
    OptimizerSettings,
    ParameterServer,
    Push,
    Rule,
    Schedule,
    Synchronous,
    Update,
    Verdict,
)
from nmt_async.text.plan import BatchId

SIZE = 6
CONSTANT = Schedule(0.1, Quantity(0, "updates"), "none")


def server_of(rule: Rule, workers: int, corrections: Sequence[Correction] = (), **constants: float) -> ParameterServer:
    buffers = torch.full((workers + 1, SIZE), float("nan"))
    buffers[0] = 1.0
    return ParameterServer(
        buffers, rule, CONSTANT, OptimizerSettings(**constants), corrections=Corrections(corrections)
    )


def gradient(number: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(number))


class Workers:
    """Computes made-up gradients with a server, and remembers what each worker is at."""

    def __init__(self, server: ParameterServer) -> None:
        self.server = server
        self.at: dict[int, Push] = {}

    def start(self, worker: int, number: int) -> None:
        self.server.pull(worker)
        batch = BatchId(1, number)
        self.at[worker] = Push(worker, batch, self.server.version, tokens=number + 1, loss=1.0, gradient_norm=1.0)

    def push(self, worker: int) -> Verdict:
        push = self.at.pop(worker)
        awaited = min((other.batch for other in self.at.values()), default=None)
        return self.server.push(push, gradient(push.batch.number), awaited)

    def push_and_update(self, worker: int) -> Update | None:
        """As a coordinator does, for rules that never put an update off."""
        self.push(worker)
        return self.server.update() if len(self.server.buffer) >= self.server.rule.pushes else None


@pytest.mark.parametrize("rule", [Synchronous(2), Asynchronous(), Hybrid(2)], ids=str)
def test_clipping_acts_on_the_sum_per_token_in_every_mode(rule: Rule) -> None:
    server = server_of(rule, 2, clip_norm=0.2)
    workers = Workers(server)
    for number in range(rule.pushes):
        workers.start(number, number)
    for number in range(rule.pushes):
        update = workers.push_and_update(number)
    assert update is not None
    mean = sum(gradient(number) for number in range(rule.pushes)) / sum(range(1, rule.pushes + 1))
    assert mean.norm() > 0.2
    assert update.gradient_norm == pytest.approx(float(mean.norm()))
    moment = server.optimizer.state()["moment1"] / (1 - server.optimizer.settings.beta1)
    torch.testing.assert_close(moment, mean * 0.2 / mean.norm())


@pytest.mark.parametrize("rule", [Synchronous(2, 2), Hybrid(2)], ids=str)
def test_an_update_of_fewer_pushes_is_normalised_by_its_own_tokens(rule: Rule) -> None:
    server = server_of(rule, 2, clip_norm=0.0)
    workers = Workers(server)
    for worker, number in ((0, 2), (1, 5)):
        workers.start(worker, number)
    workers.push(1)
    update = server.update()
    assert (update.version, update.tokens, [push.batch for push in update.pushes]) == (1, 6, [(1, 5)])
    torch.testing.assert_close(server.optimizer.state()["moment1"], 0.1 * gradient(5) / 6)
    with pytest.raises(ValueError, match="nothing is accumulated"):
        server.update()
    assert server.version == 1


def test_a_worker_that_holds_a_pull_cannot_pull_again() -> None:
    server = server_of(Hybrid(3), 2)
    workers = Workers(server)
    workers.start(0, 0)
    with pytest.raises(ValueError, match="holds a buffer already"):
        server.pull(0)
    workers.push(0)
    server.pull(0)
    server.release(0)
    server.release(0)
    server.pull(0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("of", ["loss", "gradient_norm"])
def test_what_is_not_finite_changes_nothing(of: str, wrong: float) -> None:
    server = server_of(Asynchronous(), 1)
    server.pull(0)
    push = Push(0, BatchId(1, 0), 0, 1, **{of: wrong})
    assert server.push(push, torch.full((SIZE,), wrong)) is Verdict.NOT_FINITE
    assert len(server.buffer) == 0
    assert server.parameters.eq(1.0).all()
    assert server.pulled(0) is None, "it may take another batch at once"


def test_a_rule_may_throw_stale_pushes_away() -> None:
    server = server_of(Hybrid(1, oldest_push=1), 3)
    workers = Workers(server)
    for worker in range(3):
        workers.start(worker, worker)
    ages = []
    for worker in range(2):
        update = workers.push_and_update(worker)
        assert update is not None
        ages.append(update.staleness)
    assert ages == [(0,), (1,)]
    before = server.parameters.clone()
    assert workers.push(2) is Verdict.STALE
    assert (server.version, len(server.buffer)) == (2, 0)
    assert torch.equal(server.parameters, before)


def test_progress_counts_updates_tokens_and_the_furthest_batch() -> None:
    server = server_of(Hybrid(2), 1)
    server.schedule = Schedule(1.0, Quantity(2.0, "epochs"), "none")
    rates = []
    for number, position in enumerate((0.25, 0.75, 0.5, 0.25, 1.0, 1.5)):
        server.pull(0)
        server.push(Push(0, BatchId(1, number), server.version, tokens=10, position=position), gradient(number))
        if number % 2:
            update = server.update()
            rates.append((update.learning_rate, server.progress.updates, server.progress.tokens))
    assert rates == [(0.375, 1, 20), (0.375, 2, 40), (0.75, 3, 60)]


def one_round(order: list[int], killed: int | None) -> Tensor:
    """The parameters after a synchronous update of six; ``killed`` dies when its turn is, and begins again."""
    server = server_of(Synchronous(6), 6, clip_norm=0.0)
    workers = Workers(server)
    for worker in range(6):
        workers.start(worker, worker)
    turns = list(order)
    if killed is not None:
        turns.append(killed)
    update = None
    for worker in turns:
        if worker == killed:
            server.release(worker)
            workers.start(worker, worker)
            killed = None
            continue
        update = workers.push_and_update(worker)
    assert update is not None
    assert [push.batch.number for push in update.pushes] == list(range(6))
    return server.parameters.clone()


@given(order=st.permutations(range(6)), killed=st.none() | st.integers(0, 5))
def test_a_synchronous_update_is_bit_equal_whoever_comes_first_and_whoever_dies(
    order: list[int], killed: int | None
) -> None:
    assert torch.equal(one_round(order, killed), one_round(list(range(6)), None))


class Weighing(Correction):
    """Weighs each push by a number, or by how far the parameters have gone since it was pulled, one by one."""

    looks_at_parameters = True

    def __init__(self, elementwise: bool = False) -> None:
        super().__init__()
        self.elementwise = elementwise

    def weight(self, arrival: Arrival) -> float | Tensor:
        assert arrival.pulled is not None
        return 1.0 / (1.0 + (arrival.current - arrival.pulled).abs()) if self.elementwise else 0.5**arrival.staleness


@pytest.mark.parametrize("elementwise", [False, True])
@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_a_weight_scales_the_gradient_of_a_push_and_neither_tokens_nor_progress(
    elementwise: bool, clip_norm: float
) -> None:
    server = server_of(Hybrid(1), 2, [Weighing(elementwise)], clip_norm=clip_norm)
    workers = Workers(server)
    workers.start(0, 0)
    workers.start(1, 1)
    pulled = server.parameters.clone()
    assert workers.push_and_update(0) is not None
    moment = server.optimizer.state()["moment1"].clone()
    weight = 1.0 / (1.0 + (server.parameters - pulled).abs()) if elementwise else torch.tensor(0.5)
    update = workers.push_and_update(1)
    assert update is not None
    assert (update.staleness, update.tokens, server.progress.tokens) == ((1,), 2, 3)
    mean = weight * gradient(1) / 2
    clipped = mean * min(1.0, clip_norm / float(mean.norm())) if clip_norm else mean
    assert update.gradient_norm == pytest.approx(float(mean.norm()))
    torch.testing.assert_close(server.optimizer.state()["moment1"], 0.9 * moment + 0.1 * clipped)


def test_what_was_pulled_is_kept_until_the_push_only_where_a_correction_looks_at_it() -> None:
    for corrections, kept in (([Weighing()], True), ([Correction()], False), ([], False)):
        server = server_of(Hybrid(1), 1, corrections)
        server.pull(0)
        server.computed(0)
        assert (server.pulled(0) is not None) == kept
        server.push(Push(0, BatchId(1, 0), 0, 1), gradient(0))
        assert server.pulled(0) is None
