"""The batch plan: which sentences make up which batch of which epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.text.plan import BatchId, BatchPlan, _sorted_by

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=120)


def plan_of(lengths: list[tuple[int, int]], budget: int = 50, seed: int = 1, **more) -> BatchPlan:
    source, target = np.array(lengths, dtype=np.int32).T
    return BatchPlan(source, target, budget, seed, **more)


def batches(plan: BatchPlan, epoch: int) -> list[list[int]]:
    return [plan.epoch(epoch)[number].tolist() for number in range(len(plan.epoch(epoch)))]


@given(lengths=LENGTHS, budget=st.integers(1, 100), seed=st.integers(0, 2**63 - 1), epoch=st.integers(1, 10**6),
       window=st.integers(1, 150))  # fmt: skip
def test_each_sentence_comes_once_an_epoch_and_no_batch_is_above_the_budget(
    lengths: list[tuple[int, int]], budget: int, seed: int, epoch: int, window: int
) -> None:
    made = batches(plan_of(lengths, budget, seed, window=window), epoch)
    assert sorted(itertools.chain(*made)) == list(range(len(lengths)))
    for batch in made:
        assert batch, "no batch is empty"
        assert sum(lengths[index][1] for index in batch) <= budget or len(batch) == 1


@given(lengths=LENGTHS, seed=st.integers(0, 2**63 - 1), epochs=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_it_is_a_pure_function_of_lengths_seed_and_epoch(
    lengths: list[tuple[int, int]], seed: int, epochs: list[int]
) -> None:
    asked_before = plan_of(lengths, seed=seed)
    for epoch in epochs:
        assert batches(asked_before, epoch) == batches(plan_of(lengths, seed=seed), epoch)


def skewed(count: int) -> list[tuple[int, int]]:
    """Lengths as in real text: many short, few long, the two sides alike."""
    generator = np.random.default_rng(1)
    source = np.clip(generator.gamma(3.0, 6.0, count), 2, 100).astype(int)
    target = np.clip(source * generator.normal(1.0, 0.15, count), 2, 100).astype(int)
    return list(zip(source.tolist(), target.tolist(), strict=True))


def test_another_seed_or_epoch_gives_other_batches_in_another_order() -> None:
    lengths = skewed(300)
    first, second, other = (batches(plan_of(lengths, 200, seed), epoch) for seed, epoch in ((1, 1), (1, 2), (2, 1)))
    for one, two in ((first, second), (first, other), (second, other)):
        assert one != two
        assert {tuple(sorted(batch)) for batch in one} != {tuple(sorted(batch)) for batch in two}


def test_batches_are_nearly_full_hold_little_padding_and_do_not_come_by_length() -> None:
    lengths = skewed(5000)
    plan = plan_of(lengths, 1000)
    source, target = np.array(lengths).T
    made = [plan.epoch(1)[number] for number in range(len(plan.epoch(1)))]
    for side, most in ((target, 0.03), (source, 0.2)):
        padded = sum(len(batch) * side[batch].max() for batch in made)
        assert 1 - side.sum() / padded < most
    assert target.sum() / (1000 * len(made)) > 0.95
    means = np.array([target[batch].mean() for batch in made])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3


def test_a_window_smaller_than_the_corpus_mixes_lengths_only_within_it() -> None:
    lengths = skewed(400)
    plan = plan_of(lengths, 200, window=100)
    order = plan.epoch(1).order
    bounds = set(plan.epoch(1).bounds.tolist())
    assert {0, 100, 200, 300, 400} <= bounds
    whole = plan_of(lengths, 200)
    assert sorted(order[:100].tolist()) != sorted(whole.epoch(1).order[:100].tolist())


def test_sentences_are_named_by_their_indexes_in_the_store() -> None:
    lengths = skewed(50)
    named = np.arange(50) * 3 + 7
    plain, mapped = plan_of(lengths), plan_of(lengths, indexes=named)
    for number in range(len(plain.epoch(2))):
        batch = BatchId(2, number)
        assert mapped.sentences(batch).tolist() == named[plain.sentences(batch)].tolist()


def test_a_position_is_a_fraction_of_epochs() -> None:
    plan = plan_of([(5, 5)] * 8, budget=10)
    assert [plan.position(BatchId(3, number)) for number in range(4)] == [2.25, 2.5, 2.75, 3.0]
    with pytest.raises(IndexError):
        plan.sentences(BatchId(3, 4))


def test_the_stream_goes_from_batch_to_batch_and_from_epoch_to_epoch() -> None:
    lengths = np.full(10, 5)
    plan = BatchPlan(lengths, lengths, 15, seed=1)
    count = len(plan.epoch(1))
    assert count == 4
    batch, stream = BatchId(1, 0), []
    for _ in range(2 * count):
        stream.append(batch)
        batch = plan.following(batch)
    assert stream == [BatchId(epoch, number) for epoch in (1, 2) for number in range(count)]


def test_lengths_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="2 sources for 3 targets"):
        BatchPlan(np.ones(2), np.ones(3), 10, 1)
    with pytest.raises(ValueError, match="at least one sentence"):
        BatchPlan(np.ones(0), np.ones(0), 10, 1)


def test_numpy_shuffles_as_it_permutes() -> None:
    """What an epoch was before it took half the memory, so that runs of then are resumed and replayed."""
    for count in (1, 2, 1000, 70_000):
        shuffled = np.arange(count, dtype=np.uint32)
        np.random.default_rng((3, 5)).shuffle(shuffled)
        assert shuffled.tolist() == np.random.default_rng((3, 5)).permutation(count).tolist()


@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=60),
    scale=st.sampled_from([1, 4000, 100_000]),
)
def test_a_window_is_sorted_by_target_length_and_by_source_length_in_turn(
    lengths: list[tuple[int, int]], scale: int
) -> None:
    source, target = np.array(lengths, dtype=np.int64).T * scale
    second = np.where(target % 2, source, -source)
    assert _sorted_by(target, second).tolist() == np.lexsort((second, target)).tolist()
