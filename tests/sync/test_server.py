"""The parameter server: what its pulls hold, how it answers pushes, what its updates are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from nmt_async.sync.optimizer import OptimizerSettings
from nmt_async.sync.push import Push, Verdict
from nmt_async.sync.rules import Hybrid, Rule, Standing, rule_for
from nmt_async.sync.schedule import Schedule, Span
from nmt_async.sync.server import ParameterServer

SIZE = 6
CONSTANT = Schedule(0.1, Span(0, "updates"), "none")


@dataclass(frozen=True)
class Bounded(Hybrid):
    """Hybrid, but pushes more than ``most`` updates old are thrown away."""

    most: int = 0

    def counts(self, staleness: int) -> bool:
        return staleness <= self.most


def server_of(rule: Rule, workers: int, **constants: float) -> ParameterServer:
    buffers = torch.full((workers + 1, SIZE), float("nan"))
    buffers[0] = 1.0
    return ParameterServer(buffers, rule, CONSTANT, OptimizerSettings(**constants))


def gradient(number: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(number))


class Workers:
    """Computes made-up gradients with a server, and remembers what each worker is at."""

    def __init__(self, server: ParameterServer) -> None:
        self.server = server
        self.at: dict[int, Push] = {}

    def start(self, worker: int, number: int) -> None:
        pull = self.server.start(worker, (1, number))
        self.at[worker] = Push(worker, (1, number), pull.version, tokens=number + 1, loss=1.0, gradient_norm=1.0)

    def push(self, worker: int):
        push = self.at.pop(worker)
        return self.server.push(push, gradient(push.batch[1]))


@pytest.mark.parametrize("mode", ["sync", "async", "hybrid"])
def test_clipping_acts_on_the_sum_per_token_in_every_mode(mode: str) -> None:
    count = {"sync": 2, "async": 1, "hybrid": 2}[mode]
    server = server_of(rule_for(mode, 2 if mode == "sync" else 1, 2 if mode == "hybrid" else 1), 2, clip_norm=0.2)
    workers = Workers(server)
    for number in range(count):
        workers.start(number, number)
    for number in range(count):
        update = workers.push(number).update
    assert update is not None
    mean = sum(gradient(number) for number in range(count)) / sum(range(1, count + 1))
    assert mean.norm() > 0.2
    assert update.gradient_norm == pytest.approx(float(mean.norm()))
    moment = server.optimizer.state()["moment1"] / (1 - server.optimizer.settings.beta1)
    torch.testing.assert_close(moment, mean * 0.2 / mean.norm())


def test_a_flush_is_a_smaller_update_by_its_own_tokens() -> None:
    for mode in ("sync", "hybrid"):
        server = server_of(rule_for(mode, 2, 2), 2, clip_norm=0.0)
        workers = Workers(server)
        for worker, number in ((0, 2), (1, 5)):
            workers.start(worker, number)
        assert workers.push(1).update is None
        update = server.flush()
        assert update is not None
        assert (update.version, update.tokens, [push.batch for push in update.pushes]) == (1, 6, [(1, 5)])
        torch.testing.assert_close(server.optimizer.state()["moment1"], 0.1 * gradient(5) / 6)
        assert server.flush() is None
        assert server.version == 1


def test_a_push_is_answered_once_and_a_second_one_refused() -> None:
    server = server_of(rule_for("hybrid", 2, 3), 2)
    workers = Workers(server)
    workers.start(0, 0)
    push = workers.at[0]
    assert workers.push(0).verdict is Verdict.ACCEPTED
    for wrong in (push, Push(1, (1, 0), 0, 1), Push(0, (1, 1), 0, 1)):
        with pytest.raises(ValueError, match="has not begun batch"):
            server.push(wrong, gradient(0))
    assert server.buffer.pushes == [push]
    assert torch.equal(server.buffer.sum, gradient(0))


def test_a_worker_at_a_batch_or_that_must_wait_cannot_begin_another() -> None:
    server = server_of(rule_for("sync", 2, 1), 2)
    workers = Workers(server)
    workers.start(0, 0)
    with pytest.raises(ValueError, match="may not begin"):
        server.start(0, (1, 1))
    workers.push(0)
    assert not server.may_start(0)
    with pytest.raises(ValueError, match="may not begin"):
        server.start(0, (1, 1))
    workers.start(1, 1)
    assert workers.push(1).update is not None
    assert server.may_start(0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("of", ["loss", "gradient_norm"])
def test_what_is_not_finite_changes_nothing(of: str, wrong: float) -> None:
    server = server_of(rule_for("async", 1, 1), 1)
    pull = server.start(0, (1, 0))
    push = Push(0, (1, 0), pull.version, 1, **{of: wrong})
    assert server.push(push, torch.full((SIZE,), wrong)).verdict is Verdict.NOT_FINITE
    assert server.version == 0
    assert server.parameters.eq(1.0).all()
    assert server.may_start(0), "it may take another batch at once"


def test_a_rule_may_throw_stale_pushes_away() -> None:
    server = server_of(Bounded(1, most=1), 3)
    workers = Workers(server)
    for worker in range(3):
        workers.start(worker, worker)
    answers = [workers.push(worker) for worker in range(3)]
    assert [answer.verdict for answer in answers] == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.STALE]
    assert [answer.update.staleness for answer in answers if answer.update] == [(0,), (1,)]
    before = server.parameters.clone()
    assert server.version == 2
    workers.start(2, 2)
    assert workers.at[2].version == 2
    assert torch.equal(server.parameters, before)


def test_progress_counts_updates_tokens_and_the_furthest_batch() -> None:
    server = server_of(rule_for("hybrid", 1, 2), 1)
    schedule = Schedule(1.0, Span(2.0, "epochs"), "none")
    server.schedule = schedule
    rates = []
    for number, position in enumerate((0.25, 0.75, 0.5, 0.25, 1.0, 1.5)):
        pull = server.start(0, (1, number))
        answer = server.push(Push(0, (1, number), pull.version, tokens=10, position=position), gradient(number))
        if answer.update:
            rates.append((answer.update.learning_rate, server.progress.updates, server.progress.tokens))
    assert rates == [(0.375, 1, 20), (0.375, 2, 40), (0.75, 3, 60)]


def test_a_rule_sees_what_was_begun_since_the_latest_update_delivered_or_not() -> None:
    seen: list[Standing] = []

    @dataclass(frozen=True)
    class Watched(Hybrid):
        def may_start(self, standing: Standing) -> bool:
            seen.append(standing)
            return True

    server = server_of(Watched(2), 3)
    workers = Workers(server)

    def standing(worker: int) -> tuple[int, int]:
        assert server.may_start(worker)
        return seen[-1].own, seen[-1].all

    for worker in range(3):
        workers.start(worker, worker)
    workers.push(0)
    assert standing(0) == (1, 3)
    server.abandon(1)
    assert standing(0) == (1, 2)
    assert standing(1) == (0, 2)
    workers.start(0, 3)
    workers.push(0)
    assert standing(0) == (0, 0), "the update begins a new round; worker 2 is at a batch of the old one"
    workers.push(2)
    assert standing(2) == (0, 0), "it has delivered to this round, but began in the old one"


def one_round(order: list[int], killed: int | None) -> Tensor:
    """The parameters after a synchronous update of six; ``killed`` dies when its turn is, and begins again."""
    server = server_of(rule_for("sync", 6, 1), 6, clip_norm=0.0)
    workers = Workers(server)
    for worker in range(6):
        workers.start(worker, worker)
    turns = list(order)
    if killed is not None:
        turns.append(killed)
    for worker in turns:
        if worker == killed:
            server.abandon(worker)
            workers.start(worker, worker)
            killed = None
            continue
        update = workers.push(worker).update
    assert update is not None
    assert [push.batch[1] for push in update.pushes] == list(range(6))
    return server.parameters.clone()


@given(order=st.permutations(range(6)), killed=st.none() | st.integers(0, 5))
def test_a_synchronous_update_is_bit_equal_whoever_comes_first_and_whoever_dies(
    order: list[int], killed: int | None
) -> None:
    assert torch.equal(one_round(order, killed), one_round(list(range(6)), None))


class AnyDrive(RuleBasedStateMachine):
    """Workers begin, push, die and come back in any order; checkpoints are taken and gone back to."""

    WORKERS = 3

    @initialize(make=st.sampled_from([
        lambda: rule_for("sync", 3, 1), lambda: rule_for("sync", 3, 2), lambda: rule_for("async", 3, 1),
        lambda: rule_for("hybrid", 3, 4), lambda: Bounded(2, most=1), lambda: Bounded(3, most=0),
    ]))  # fmt: skip
    def begin(self, make: Callable[[], Rule]) -> None:
        self.rule = make()
        self.server = server_of(self.rule, self.WORKERS)
        self.next = 0
        self.returned: list[int] = []
        self.at: dict[int, tuple[Push, Tensor, Tensor]] = {}
        self.stored: tuple[str, dict[str, Tensor], int, list[int]] | None = None

    @rule(worker=st.integers(0, 2))
    def start(self, worker: int) -> None:
        if not self.server.may_start(worker):
            return
        number = self.returned.pop(0) if self.returned else self.next
        self.next = max(self.next, number + 1)
        pull = self.server.start(worker, (1, number))
        assert pull.version == self.server.version
        buffer = self.server.ring.buffers[pull.buffer]
        push = Push(worker, (1, number), pull.version, number + 1)
        self.at[worker] = (push, buffer, self.server.parameters.clone())

    @rule(worker=st.integers(0, 2), finite=st.sampled_from([True, True, True, False]))
    def push(self, worker: int, finite: bool) -> None:
        if worker not in self.at:
            return
        push, _, _ = self.at.pop(worker)
        if not finite:
            push = Push(**{**vars(push), "gradient_norm": math.inf})
        version, before = self.server.version, self.server.parameters.clone()
        answer = self.server.push(push, gradient(push.batch[1]))
        stale = version - push.version
        expected = Verdict.NOT_FINITE if not finite else Verdict.ACCEPTED if self.rule.counts(stale) else Verdict.STALE
        assert answer.verdict is expected
        if answer.verdict is not Verdict.ACCEPTED:
            self.returned = sorted([*self.returned, push.batch[1]])
        if answer.update is None:
            assert self.server.version == version
            assert torch.equal(self.server.parameters, before)
        else:
            assert answer.update.version == self.server.version == version + 1
            assert len(answer.update.pushes) == self.rule.pushes
            ages = tuple(version - push.version for push in answer.update.pushes)
            assert answer.update.staleness == ages
            assert all(self.rule.counts(age) for age in ages)

    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        self.server.abandon(worker)
        if worker in self.at:
            push, _, _ = self.at.pop(worker)
            self.returned = sorted([*self.returned, push.batch[1]])

    @precondition(lambda self: hasattr(self, "server"))
    @rule()
    def save(self) -> None:
        values, tensors = self.server.state()
        out = [push.batch[1] for push, _, _ in self.at.values()]
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        self.stored = (json.dumps(values), copies, self.next, sorted([*self.returned, *out]))

    @precondition(lambda self: getattr(self, "stored", None) is not None)
    @rule(anew=st.booleans())
    def resume(self, anew: bool) -> None:
        assert self.stored is not None
        values, tensors, self.next, returned = self.stored
        if anew:
            self.server = server_of(self.rule, self.WORKERS)
        self.server.restore(json.loads(values), tensors)
        self.returned, self.at = list(returned), {}
        again, copies = self.server.state()
        assert json.dumps(again) == values
        assert all(torch.equal(tensor, copies[name]) for name, tensor in tensors.items())

    @invariant()
    def each_pull_is_one_whole_version_until_its_push(self) -> None:
        for _, buffer, copy in getattr(self, "at", {}).values():
            assert torch.equal(buffer, copy)

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        if hasattr(self, "server") and not self.at:
            assert any(self.server.may_start(worker) for worker in range(self.WORKERS))

    @invariant()
    def a_synchronous_round_is_never_larger_than_its_update(self) -> None:
        if hasattr(self, "server") and self.rule.ordered:
            assert len(self.at) + len(self.server.buffer) <= self.rule.pushes


AnyDrive.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyDrive = AnyDrive.TestCase
