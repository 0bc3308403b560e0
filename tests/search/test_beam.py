"""Batched beam search against its definition, on tiny random models in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from definitions import (
    KINDS,
    NORMALIZATIONS,
    all_translations,
    allowed,
    assert_same,
    decode,
    lengths_allowed,
    mixed_log_probabilities,
    random_model,
    random_sources,
    reference_beam_search,
    searches,
)
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nmt_async.search.options import Search
from nmt_async.text.vocabulary import END, UNKNOWN

pytestmark = pytest.mark.numeric

FINITE = st.integers(1, 6).flatmap(
    lambda beam_size: searches(
        beam_size=st.just(beam_size),
        normalize=NORMALIZATIONS,
        max_length_factor=st.sampled_from([0.5, 1.0]),
        extra_length=st.integers(1, 4),
        wanted=st.sampled_from(sorted({1, beam_size})),
    )
)
PLAIN = Search(beam_size=4, normalize=0.6, max_length_factor=1.0, extra_length=3)


@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([3, 4, 9, 64, 150, 200]),
    eagerness=st.sampled_from([-3.0, 1.0, 4.0]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    search=FINITE,
    forced=st.lists(st.integers(1, 2), max_size=5),
    kind=st.sampled_from(sorted(KINDS)),
)
@example(seed=1, vocabulary=200, eagerness=2.0, lengths=[3, 1, 5], search=PLAIN, forced=[], kind="transformer")
@example(seed=1, vocabulary=200, eagerness=2.0, lengths=[3, 1, 5], search=PLAIN, forced=[], kind="rnn")
@example(seed=1, vocabulary=200, eagerness=2.0, lengths=[3, 1, 5], search=PLAIN, forced=[], kind="ssru")
@settings(max_examples=60, deadline=None)
def test_batched_search_finds_what_the_definition_finds(seed, vocabulary, eagerness, lengths, search, forced, kind):
    model = random_model(seed, vocabulary, eagerness, kind)
    following = mixed_log_probabilities([model], [1.0])
    sources = random_sources(seed, vocabulary, lengths)
    prefixes = [forced[:number] for number in range(len(sources))]
    expected = [
        reference_beam_search(following, source, search, prefix)
        for source, prefix in zip(sources, prefixes, strict=True)
    ]
    assume(all(expected))  # where everything is forbidden there is nothing to find
    for found, hypotheses in zip(decode(model, sources, search, prefixes), expected, strict=True):
        assert_same(found, hypotheses)


@given(
    seed=st.integers(0, 10_000),
    eagerness=st.sampled_from([-1.0, 1.0]),
    search=searches(
        beam_size=st.just(400), normalize=NORMALIZATIONS, max_length_factor=st.just(0.5),
        extra_length=st.just(4), wanted=st.sampled_from([1, 10]),
    ),
    forced=st.sampled_from([[], [], [2], [3, 3], [1, 2, 2]]),
    kind=st.sampled_from(sorted(KINDS)),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all_translations(seed, eagerness, search, forced, kind):
    """All of up to four subwords, with every penalty and constraint; the worst found is worse than none not found."""
    model = random_model(seed, 5, eagerness, kind)
    (source,) = random_sources(seed, 5, [2])
    everything = all_translations(mixed_log_probabilities([model], [1.0]), source, search, forced)
    (found,) = decode(model, [source], search, [forced])
    if everything:
        assert_same(found, everything[: search.wanted])
    else:
        assert [(hypothesis.ids, hypothesis.score) for hypothesis in found] == [((), -math.inf)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_greedy_search(kind):
    model = random_model(4, 60, eagerness=1.0, kind=kind)
    following = mixed_log_probabilities([model], [1.0])
    search = Search(beam_size=1)
    for source, (found,) in zip(
        sources := random_sources(4, 60, [3, 9, 1, 6, 2]), decode(model, sources, search), strict=True
    ):
        words, scores = (), []
        while not words or words[-1] != END:
            (log_probabilities,) = following(source, [words])
            log_probabilities[[word for word in range(60) if not allowed(search, source, words, word)]] = -math.inf
            scores.append(float(log_probabilities.max()))
            words = (*words, int(log_probabilities.argmax()))
        assert found.ids == words[:-1]
        assert found.token_scores == pytest.approx(scores, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam_size", [1, 5])
def test_batch_order_and_padding_do_not_change_a_translation(beam_size, kind):
    """64 at once, and in another order, give the very subwords that each gives alone."""
    model = random_model(3, 150, eagerness=2.0, kind=kind)
    lengths = [1 + (7 * number) % 30 for number in range(64)]
    sources = random_sources(7, 150, lengths)
    search = Search(beam_size=beam_size, normalize=0.6, max_length_factor=1.0, extra_length=3, wanted=beam_size)
    alone = [decode(model, [source], search)[0] for source in sources]
    for together, expected in zip(decode(model, sources, search), alone, strict=True):
        assert_same(together, expected, tolerance=1e-12)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1)).tolist()
    for number, together in zip(order, decode(model, [sources[number] for number in order], search), strict=True):
        assert_same(together, alone[number], tolerance=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_batches_change_a_translation_only_where_two_are_as_good(kind):
    model = random_model(3, 150, eagerness=2.0, kind=kind).float()
    sources = random_sources(7, 150, [1 + (7 * number) % 30 for number in range(64)])
    search, others = Search(beam_size=5, normalize=0.6, max_length_factor=1.0, extra_length=3), 0
    for source, (together,) in zip(sources, decode(model, sources, search), strict=True):
        ((alone,),) = decode(model, [source], search)
        assert together.score == pytest.approx(alone.score, abs=1e-3)
        others += together.ids != alone.ids
    assert others <= 1


def test_the_same_search_gives_the_same_bits():
    model = random_model(3, 150, eagerness=2.0).float()
    sources = random_sources(7, 150, [3, 14, 1, 8])
    assert decode(model, sources, Search(wanted=5)) == decode(model, sources, Search(wanted=5))


@given(search=FINITE, forced=st.lists(st.integers(1, 8), max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_every_translation_keeps_the_constraints_and_its_subwords_scores_sum_to_its_score(search, forced, seed):
    model = random_model(seed, 9, eagerness=-1.0)
    with torch.no_grad():
        model.output_bias[UNKNOWN] += 3.0
    sources = random_sources(seed, 9, [4, 1])
    for source, hypotheses in zip(sources, decode(model, sources, search, [forced, []]), strict=True):
        prefix = forced if source is sources[0] else ()
        for hypothesis in hypotheses:
            if hypothesis.score == -math.inf:
                continue
            words = (*hypothesis.ids, END)
            assert all(
                allowed(search, source, words[:place], word, prefix) for place, word in enumerate(words)
            ), hypothesis  # fmt: skip
            assert len(hypothesis.token_scores) == len(words)
            assert sum(hypothesis.token_scores) == pytest.approx(hypothesis.score, abs=1e-9)
            assert hypothesis.alignment is None


def test_unknown_is_never_produced_and_lengths_are_within_the_limit():
    model = random_model(5, 20, eagerness=-9.0)
    with torch.no_grad():
        model.output_bias[UNKNOWN] = 20.0
    sources = random_sources(5, 20, [4, 1])
    for hypotheses, limit in zip(decode(model, sources, Search(3, wanted=3)), (22, 13), strict=True):
        for hypothesis in hypotheses:
            assert UNKNOWN not in hypothesis.ids
            assert END not in hypothesis.ids
            assert len(hypothesis.ids) + 1 == limit


def test_a_shortest_length_yields_to_the_longest():
    model = random_model(5, 20, eagerness=9.0)
    search = Search(beam_size=2, max_length_factor=0.01, extra_length=3, min_target_length=8)
    sources = random_sources(5, 20, [4, 1])
    assert lengths_allowed(search, sources[0]) == (3, 3)
    assert [len(hypotheses[0].ids) for hypotheses in decode(model, sources, search)] == [2, 2]


def test_a_model_that_is_not_finite_gives_an_empty_translation():
    model = random_model(5, 20)
    with torch.no_grad():
        model.output_bias.fill_(math.nan)
    for hypotheses in decode(model, random_sources(5, 20, [4, 1]), Search()):
        assert [hypothesis.ids for hypothesis in hypotheses] == [()]
