"""What the modes have in common: the identities of docs/architecture.md, on a real Transformer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.cluster.worker import dropout_seed
from nmt_async.model.kernels import Arithmetic, compute_with, kernels_for
from nmt_async.sync.push import Push, Update
from nmt_async.sync.rules import rule_for
from nmt_async.text.plan import BatchId

pytestmark = pytest.mark.numeric

UPDATES = 6


def even_profile(workers: int) -> ClusterProfile:
    return ClusterProfile("even", (WorkerProfile(),) * workers)


def simulate(
    training, mode, workers, accumulate=1, dropout=0.0, updates=UPDATES, profile=None
) -> tuple[Tensor, list[Update]]:
    """The parameters after so many updates of the simulated cluster, and the updates."""
    coordinator = training.coordinator(mode, workers, accumulate)
    cluster = SimulatedCluster(coordinator, training.gradients(dropout), profile or even_profile(workers))
    made = [update for _, update in zip(range(updates), cluster.updates(), strict=False)]
    return coordinator.server.parameters.clone(), made


def one_big_batch(training, count: int) -> Tensor:
    """Parameters after updates of one process, each on one batch that holds the sentences of ``count``."""
    server = training.server(rule_for("async", 1, 1), 1)
    worker, plan = training.worker(), training.plan()
    slot = torch.zeros(worker.layout.size)
    stream = [BatchId(epoch, number) for epoch in (1, 2, 3) for number in range(len(plan.epoch(epoch)))]
    for update in range(UPDATES):
        parts = stream[update * count : (update + 1) * count]
        key = parts[-1]
        sentences = [index for part in parts for index in plan.sentences(part)]
        batch = training.data.batch(sentences)
        computed = worker.compute(server.ring.buffers[server.pull(0)], slot, [batch], key)
        server.push(Push(0, key, server.version, computed.tokens, gradient_norm=computed.gradient_norm), slot)
        server.update()
    return server.parameters.clone()


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
@pytest.mark.parametrize(("workers", "accumulate"), [(2, 1), (3, 1), (2, 2)])
def test_sync_is_hybrid_with_one_worker_is_one_big_batch(
    training, workers: int, accumulate: int, clip_norm: float
) -> None:
    training = dataclasses.replace(training, clip_norm=clip_norm)
    sync, updates = simulate(training, "sync", workers, accumulate)
    hybrid, others = simulate(training, "hybrid", 1, workers * accumulate)
    big = one_big_batch(training, workers * accumulate)
    start = training.server(rule_for("async", 1, 1), 1).parameters
    assert (big - start).abs().max() > 0.02, "something has been learnt"
    assert torch.equal(sync, hybrid), "the same sums in the same order"
    assert_same(sync, big)
    assert [update.tokens for update in updates] == [update.tokens for update in others]
    assert [update.gradient_norm for update in updates] == [update.gradient_norm for update in others]
    assert all(update.gradient_norm > 0.3 for update in updates), "clipping has something to do"


def test_async_with_one_worker_is_a_plain_training_loop(training) -> None:
    """The plain loop knows nothing of ours but the model, the batches and the seeds of dropout."""
    ours, updates = simulate(training, "async", 1, dropout=0.2)
    model = training.model(dropout=0.2).train()
    compute_with(
        model, Arithmetic(kernels_for(torch.device("cpu")))
    )  # for the masks of dropout; the loss is torch's own
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=training.epsilon)
    plan = training.plan()
    for step in range(1, UPDATES + 1):
        key = BatchId(1, step - 1)
        batch = training.data.batch(plan.sentences(key))
        torch.manual_seed(dropout_seed(5, key))
        logits, targets = model(batch)
        adam.zero_grad()
        F.cross_entropy(logits, targets, label_smoothing=training.label_smoothing).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        adam.param_groups[0]["lr"] = 0.02 * min(step / 4, (4 / step) ** 0.5)
        adam.step()
        assert updates[step - 1].gradient_norm == pytest.approx(float(norm), rel=1e-3)
        assert updates[step - 1].learning_rate == pytest.approx(adam.param_groups[0]["lr"])
    assert_same(ours, training.worker().layout.gather(model))


@settings(max_examples=10)
@given(speeds=st.lists(st.floats(0.1, 9.0), min_size=3, max_size=3), jitter=st.floats(0.0, 2.0))
def test_sync_is_bit_equal_whatever_the_workers_speeds(training, speeds: list[float], jitter: float) -> None:
    uneven = ClusterProfile("uneven", tuple(WorkerProfile(speed, jitter=jitter) for speed in speeds))
    parameters, updates = simulate(training, "sync", 3, 2, dropout=0.2, updates=3, profile=uneven)
    even, others = simulate(training, "sync", 3, 2, dropout=0.2, updates=3)
    assert torch.equal(parameters, even)
    assert [update.loss for update in updates] == [update.loss for update in others]
