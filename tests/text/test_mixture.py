"""How corpora are mixed: exact counts in every epoch, no pair before its turn, and nothing changed without weights."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.text.mixture import CorpusWeights, Mixture, weights_at
from nmt_async.text.plan import BatchPlan

PARTS = st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, 0.1, 1, 2.5, 7, 1000])), min_size=1, max_size=5)


def mixed(parts: list[tuple[int, float]]) -> tuple[list[int], Mixture] | None:
    sizes, weights = ([part[side] for part in parts] for side in (0, 1))
    return (sizes, Mixture.of(sizes, weights)) if any(weights) else None


def corpus_of(rows: np.ndarray, sizes: list[int]) -> Counter[int]:
    return Counter(np.searchsorted(np.cumsum(sizes), rows, side="right").tolist())


@given(parts=PARTS, seed=st.integers(0, 2**63 - 1), epochs=st.integers(1, 12))
def test_counts_of_every_corpus_are_its_share_to_less_than_one_pair_after_every_epoch(
    parts: list[tuple[int, float]], seed: int, epochs: int
) -> None:
    if (found := mixed(parts)) is None:
        return
    sizes, mixture = found
    total = sum(Fraction(repr(float(weight))) for _, weight in parts)
    pairs = sum(size for size, weight in parts if weight)
    so_far: Counter[int] = Counter()
    for epoch in range(1, epochs + 1):
        rows = mixture.rows(epoch, seed)
        assert len(rows), "no epoch is empty"
        so_far += corpus_of(rows, sizes)
        for corpus, (_, weight) in enumerate(parts):
            due = epoch * pairs * Fraction(repr(float(weight))) / total
            assert so_far[corpus] <= due < so_far[corpus] + 1
        assert tuple(so_far[corpus] for corpus in range(len(sizes))) == mixture.drawn(epoch)


@given(parts=PARTS, seed=st.integers(0, 2**32), epochs=st.integers(1, 12))
def test_no_pair_comes_again_before_all_of_its_corpus_have_come(
    parts: list[tuple[int, float]], seed: int, epochs: int
) -> None:
    if (found := mixed(parts)) is None:
        return
    sizes, mixture = found
    times = np.zeros(sum(sizes), int)
    for epoch in range(1, epochs + 1):
        np.add.at(times, mixture.rows(epoch, seed), 1)
        for corpus in np.split(times, np.cumsum(sizes)[:-1]):
            assert corpus.max() - corpus.min() <= 1


def test_epochs_and_seeds_take_different_pairs() -> None:
    mixture = Mixture.of([100, 100], [1, 3])
    taken = [tuple(mixture.rows(epoch, seed)) for epoch, seed in ((1, 1), (3, 1), (1, 2))]
    assert len(set(taken)) == 3
    first = np.concatenate([mixture.rows(1, 1), mixture.rows(2, 1)])
    assert sorted(first[first < 100]) == list(range(100)), "two halves of the corpus that an epoch takes half of"


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4), seed=st.integers(0, 2**63 - 1), epoch=st.integers(1, 9)
)
def test_weights_as_the_sizes_make_the_very_batches_that_there_are_without_weights(
    sizes: list[int], seed: int, epoch: int
) -> None:
    lengths = np.random.default_rng(1).integers(1, 30, sum(sizes))
    plain = BatchPlan(lengths, lengths, 50, seed).epoch(epoch)
    for weights in (sizes, weights_at(1.0, sizes)):
        plan = BatchPlan(lengths, lengths, 50, seed, mixture=Mixture.of(sizes, weights)).epoch(epoch)
        assert plan.order.tolist() == plain.order.tolist()
        assert plan.bounds.tolist() == plain.bounds.tolist()


def test_batches_of_a_mixed_epoch_hold_just_its_pairs() -> None:
    lengths = np.random.default_rng(1).integers(1, 30, 60)
    mixture = Mixture.of([10, 50], [3, 1])
    indexes = np.arange(60) * 2 + 5
    plan = BatchPlan(lengths, lengths, 80, 7, indexes, mixture=mixture)
    for epoch in (1, 2, 5):
        again = BatchPlan(lengths, lengths, 80, 7, indexes, mixture=mixture).epoch(epoch)
        held = np.concatenate([plan.epoch(epoch)[number] for number in range(len(plan.epoch(epoch)))])
        assert held.tolist() == np.concatenate([again[number] for number in range(len(again))]).tolist()
        assert sorted(held) == indexes[mixture.rows(epoch, 7)].tolist()
        assert (held < 25).sum() == 45, "three quarters of 60 pairs, of the corpus of 10"


def test_an_epochs_tokens_are_the_mean_of_all_epochs() -> None:
    lengths = np.array([10] * 8 + [4] * 12)
    assert BatchPlan(lengths, lengths, 50, 1).epoch_tokens == 128
    plan = BatchPlan(lengths, lengths, 50, 1, mixture=Mixture.of([8, 12], [1, 1]))
    assert plan.epoch_tokens == 140
    assert sum(lengths[plan.epoch(epoch).order].sum() for epoch in (1, 2, 3)) == 3 * 140


def test_a_tenth_is_a_tenth() -> None:
    assert Mixture.of([10, 90], [0.1, 0.9]).quotas == (10, 90)


def test_a_temperature_makes_weights_more_alike() -> None:
    shares = {}
    for temperature in (1.0, 2.0, 5.0, 1e6):
        weights = weights_at(temperature, [1000, 9000])
        shares[temperature] = float(weights[0] / sum(weights))
    assert shares[1.0] == pytest.approx(0.1, abs=0)
    assert shares[2.0] == pytest.approx(1 / 4, abs=1e-8)
    assert shares[5.0] == pytest.approx(1 / (1 + 9**0.2), abs=1e-8)
    assert shares[1e6] == pytest.approx(0.5, abs=1e-5)


def test_a_corpus_of_weight_nothing_is_left_out_of_what_an_epoch_is() -> None:
    mixture = Mixture.of([7, 100, 3], [1, 0, 1])
    assert mixture.quotas == (5, 0, 5)
    assert mixture.mean([70, 0, 6]) == 5 * 10 + 5 * 2


@pytest.mark.parametrize(("sizes", "weights"), [([5, 5], [0, 0]), ([5, 5], [-1, 2]), ([0, 5], [1, 1])])
def test_what_cannot_be_mixed_is_refused(sizes: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no epoch can be mixed"):
        Mixture.of(sizes, weights)
    with pytest.raises(ValueError, match="a mixture of 4 sentences for 3"):
        BatchPlan(np.ones(3), np.ones(3), 5, 1, mixture=Mixture.of([2, 2], [1, 1]))


def test_weights_come_back_as_they_are_written() -> None:
    weights = CorpusWeights.parse("news=0.1, general=2,other=0")
    assert CorpusWeights.parse(str(weights)) == weights
    assert weights.of(["general", "news", "other"]) == [2, 0.1, 0]
    with pytest.raises(UserError, match="talks has no weight; give each of general, news, other, talks one"):
        weights.of(["general", "news", "other", "talks"])
    with pytest.raises(UserError, match="there is no corpus other; there are general, news"):
        weights.of(["general", "news"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("news", "'news' is not NAME=WEIGHT"),
        ("news=x", "'news=x' is not NAME=WEIGHT"),
        ("a/b=1", "'a/b=1' is not NAME=WEIGHT"),
        ("news=nan", "nan is no weight"),
        ("news=-1,general=1", "-1 is no weight"),
        ("news=1e9", "is no weight; give 0, or a number from 1e-06 to 1e.06"),
        ("news=0,general=0", "sums to nothing"),
        ("", "sums to nothing"),
        ("news=1,news=2", "news is given twice"),
    ],
)
def test_weights_that_cannot_be_are_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorpusWeights.parse(text)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 3.0, 1e6])
def test_no_temperature_leaves_a_corpus_out(temperature: float) -> None:
    mixture = Mixture.of((10, 10**6), weights_at(temperature, (10, 10**6)))
    assert all(mixture.quotas)
    assert sum(mixture.quotas) == 10**6 + 10
