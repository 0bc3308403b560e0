"""The worker: the gradient of one batch, the same wherever and whenever it is computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from wrapped_model import WrappedModel

from nmt_async.cluster.worker import Abandoned, Worker, dropout_seed, out_of_memory, pieces_of
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.translation_model import TrainableModel
from nmt_async.text.batch import Batch


class LittleMemory(WrappedModel):
    """A model on a device that cannot hold more than so many sentences at once."""

    def __init__(self, model: TrainableModel, sentences: int) -> None:
        super().__init__(model)
        self.sentences = sentences
        self.failures = 0

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden, targets = self.model.hidden(batch)
        if len(batch) > self.sentences:
            self.failures += 1
            raise torch.OutOfMemoryError("it is full")
        return hidden, targets


class FullGoingBack(torch.autograd.Function):
    """Runs out of memory in the backward pass, when some gradients are there already."""

    @staticmethod
    def forward(_context, hidden: Tensor) -> Tensor:
        return hidden.clone()

    @staticmethod
    def backward(_context, _gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("it is full")


class LittleMemoryGoingBack(LittleMemory):
    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if len(batch) <= self.sentences:
            return self.model.hidden(batch)
        self.failures += 1
        handle = self.model.encoder_top.register_forward_hook(lambda *parts: FullGoingBack.apply(parts[-1]))
        try:
            return self.model.hidden(batch)
        finally:
            handle.remove()


@pytest.fixture(scope="module")
def vector(training) -> Tensor:
    """The parameters of one moment."""
    return training.worker().layout.gather(training.model())


def gradient_of(worker: Worker, vector: Tensor, batch: Batch, key=(1, 0)):
    slot = torch.full_like(vector, 3.0)
    for place, following in zip(worker.layout.places, [*worker.layout.places[1:], None], strict=True):
        slot[place.end : following.begin if following else None] = 0.0  # gaps are zero and stay so
    return worker.compute(vector, slot, [batch], key), slot


def test_a_batch_has_the_same_gradient_in_any_worker_and_after_any_other(training, vector) -> None:
    batch, other = training.data.batch(range(6)), training.data.batch(range(6, 20))
    worker = training.worker(dropout=0.3)
    first = gradient_of(worker, vector, batch)
    gradient_of(worker, vector + 0.1, other, (1, 1))
    torch.rand(100)
    again = gradient_of(worker, vector.clone(), batch)
    elsewhere = gradient_of(training.worker(dropout=0.3), vector, batch)
    for computed, slot in (again, elsewhere):
        assert computed == first[0]
        assert torch.equal(slot, first[1])


@pytest.mark.parametrize("asked", range(4))
def test_a_worker_leaves_a_gradient_that_means_nothing_before_any_of_its_passes(training, vector, asked: int) -> None:
    """Two pieces have two forward and two backward passes, and the next batch is as if nothing had been."""
    worker, batch = training.worker(dropout=0.3), training.data.batch(range(6))
    wanted = gradient_of(training.worker(dropout=0.3), vector, batch)
    answers = iter([*[False] * asked, True])
    slot = torch.full_like(vector, 3.0)
    with pytest.raises(Abandoned):
        worker.compute(vector, slot, [batch], (1, 0), pieces=2, void=lambda: next(answers))
    assert slot.eq(3.0).all()
    assert next(answers, None) is None, "it asked no more"
    computed, slot = gradient_of(worker, vector, batch)
    assert computed == wanted[0]
    assert torch.equal(slot, wanted[1])


def test_dropout_depends_on_seed_epoch_and_number(training, vector) -> None:
    seeds = {dropout_seed(seed, (epoch, number)) for seed in range(3) for epoch in range(9) for number in range(99)}
    assert len(seeds) == 3 * 9 * 99
    assert all(0 <= seed < 2**63 for seed in seeds)
    worker, batch = training.worker(dropout=0.3), training.data.batch(range(6))
    losses = {gradient_of(worker, vector, batch, key)[0].loss for key in ((1, 0), (1, 1), (2, 0))}
    assert len(losses) == 3


def test_it_tells_what_the_batch_holds(training, vector) -> None:
    batch = training.data.batch(range(6))
    computed, slot = gradient_of(training.worker(), vector, batch)
    assert (computed.tokens, computed.source_tokens, computed.pieces) == (batch.target_tokens, batch.source_tokens, 1)
    assert computed.gradient_norm == pytest.approx(float(slot.norm()))


@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_the_gradient_is_that_of_every_parameter_tied_ones_included(training, tied: str) -> None:
    model, twin = training.model(tied=tied), training.model(tied=tied)
    worker = Worker(model, 5, 0.1, torch.device("cpu"))
    batch = training.data.batch(range(6))
    _, slot = gradient_of(worker, worker.layout.gather(twin), batch)
    loss = smoothed_cross_entropy(*twin(batch), 0.1)
    parameters = dict(twin.named_parameters())
    expected = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(worker.layout.named(slot)[name], gradient)
    assert all(gradient.abs().max() > 0 for name, gradient in worker.layout.named(slot).items() if "bias" not in name)


@pytest.mark.parametrize("kind", [LittleMemory, LittleMemoryGoingBack])
@pytest.mark.parametrize(("sentences", "parts"), [(6, 1), (5, 2), (3, 2), (2, 4), (1, 6)])
def test_a_batch_too_large_is_computed_in_parts_with_the_same_gradient(
    training, vector, kind: type[LittleMemory], sentences: int, parts: int
) -> None:
    batch = training.data.batch(range(6))
    whole, expected = gradient_of(training.worker(), vector, batch)
    model = kind(training.model(), sentences)
    worker = Worker(model, 5, 0.1, torch.device("cpu"))
    for _ in range(2):
        computed, slot = gradient_of(worker, vector, batch)
        assert computed.pieces == parts
        assert (computed.tokens, computed.source_tokens) == (whole.tokens, whole.source_tokens)
        assert computed.loss == pytest.approx(whole.loss, rel=1e-5)
        torch.testing.assert_close(slot, expected, rtol=1e-4, atol=1e-5)
    assert (model.failures > 0) == (parts > 1)


@pytest.mark.parametrize("error", [
    MemoryError(),
    torch.OutOfMemoryError("it is full"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 80 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("could not create a primitive"),
], ids=str)  # fmt: skip
def test_memory_fails_under_many_names(training, vector, error: Exception) -> None:
    class Failing(LittleMemory):
        def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
            if len(batch) > self.sentences:
                raise error
            return self.model.hidden(batch)

    assert out_of_memory(error)
    computed, _ = gradient_of(Worker(Failing(training.model(), 3), 5, 0.1, torch.device("cpu")), vector,
                              training.data.batch(range(6)))  # fmt: skip
    assert computed.pieces == 2


def test_any_other_failure_ends_the_worker(training, vector) -> None:
    class Wrong(LittleMemory):
        def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
            self.failures += len(batch) > 0
            raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    model = Wrong(training.model(), 0)
    with pytest.raises(RuntimeError, match="must match"):
        gradient_of(Worker(model, 5, 0.1, torch.device("cpu")), vector, training.data.batch(range(6)))
    assert model.failures == 1


def test_a_worker_remembers_where_memory_failed(training, vector) -> None:
    batch = training.data.batch(range(6))
    model = LittleMemory(training.model(), 3)
    worker = Worker(model, 5, 0.1, torch.device("cpu"))
    first, _ = gradient_of(worker, vector, batch)
    assert (first.pieces, model.failures) == (2, 1)
    assert first.most == worker.most == max(piece.padded_tokens for piece in batch.pieces(2))
    again, _ = gradient_of(worker, vector, batch, (1, 1))
    assert (again.pieces, again.most, model.failures) == (2, first.most, 1)
    small, _ = gradient_of(worker, vector, training.data.batch(range(2)), (1, 2))
    assert small.pieces == 1
    successor = Worker(model, 5, 0.1, torch.device("cpu"), first.most)
    assert gradient_of(successor, vector, batch)[0].pieces == 2
    assert model.failures == 1


def test_with_dropout_the_gradient_depends_on_the_pieces_and_on_nothing_that_failed(training, vector) -> None:
    batch = training.data.batch(range(6))
    whole = gradient_of(training.worker(0.3), vector, batch)[1]
    failed = gradient_of(Worker(LittleMemory(training.model(0.3), 2), 5, 0.1, torch.device("cpu")), vector, batch)
    told = torch.zeros_like(vector)
    at_once = training.worker(0.3).compute(vector, told, [batch], (1, 0), failed[0].pieces)
    assert at_once.pieces == failed[0].pieces == 4
    assert torch.equal(told, failed[1])
    assert not torch.equal(told, whole)


@given(rows=st.lists(st.integers(1, 40), min_size=1, max_size=4), pieces=st.integers(1, 50))
def test_the_number_of_all_pieces_tells_in_how_many_each_part_was_cut(rows: list[int], pieces: int) -> None:
    def cut(count: int) -> list[int]:
        return [min(count, part) for part in rows]

    assert cut(pieces_of(rows, sum(cut(pieces)))) == cut(pieces)


def test_a_sentence_too_large_by_itself_ends_the_worker(training, vector) -> None:
    worker = Worker(LittleMemory(training.model(), 0), 5, 0.1, torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError):
        gradient_of(worker, vector, training.data.batch(range(3)))


def test_the_parameters_it_reads_are_not_changed(training, vector) -> None:
    before = vector.clone()
    gradient_of(training.worker(dropout=0.3), vector, training.data.batch(range(6)))
    assert torch.equal(vector, before)
