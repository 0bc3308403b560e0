"""Batched beam search against its definition, on tiny random models in double precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt_async.decoding.beam import Hypothesis, Search, beam_search
from nmt_async.model.build import build_model
from nmt_async.model.configuration import MODELS, ModelConfiguration
from nmt_async.text.batch import END, UNKNOWN, Batch, pad


def random_model(seed, vocabulary, eagerness=0.0, kind="transformer"):
    """A model whose output bias makes some subwords likely, the end by ``eagerness`` more."""
    sizes = {"dim_rnn": 12} if kind == "rnn" else {"heads": 2, "dim_ffn": 12, "norm": "pre", "activation": "relu"}
    configuration = ModelConfiguration.from_mapping(
        {"model": kind, "source_vocabulary": vocabulary, "target_vocabulary": vocabulary, "dim_emb": 8,
         "enc_depth": 1, "dec_depth": 1, "dropout": 0.0, "tied": "all", **sizes}
    )  # fmt: skip
    model = build_model(configuration, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.output_weight.mul_(2.0 if kind == "transformer" else 4.0)
        model.output_bias.copy_(torch.randn(vocabulary, generator=generator))
        model.output_bias[END] += eagerness
    return model


def random_sources(seed, vocabulary, lengths):
    generator = torch.Generator().manual_seed(seed)
    return [torch.tensor([*torch.randint(1, vocabulary, (n - 1,), generator=generator).tolist(), END]) for n in lengths]


def decode(model, sources, search):
    with torch.inference_mode():
        return beam_search(model, *pad([source.numpy() for source in sources]), search)


def next_log_probabilities(model, source, prefixes):
    """Of the subword after each prefix, all of one length, computed anew by the forward pass."""
    rows, length = len(prefixes), len(prefixes[0]) + 1
    target = torch.tensor([[*prefix, END] for prefix in prefixes])
    batch = Batch(source.repeat(rows, 1), torch.full((rows,), len(source)), target, torch.full((rows,), length))
    with torch.no_grad():
        logits, _ = model(batch)
    return torch.log_softmax(logits.view(rows, length, -1)[:, -1], dim=1).tolist()


def reference_beam_search(model, source, search):
    """Beam search as its definition reads: one sentence, lists, the whole prefix computed anew at each step."""
    limit = int(len(source) * search.max_length_factor) + search.extra_length
    alive, ended = [((), 0.0)], []
    for length in range(1, limit + 1):
        continuations = []
        following = next_log_probabilities(model, source, [prefix for prefix, _ in alive])
        for (prefix, score), log_probabilities in zip(alive, following, strict=True):
            for word, log_probability in enumerate(log_probabilities):
                if word != UNKNOWN and (word == END or length < limit):
                    continuations.append((score + log_probability, prefix, word))
        continuations.sort(key=lambda continuation: -continuation[0])
        for score, prefix, word in continuations[: search.beam_size]:
            if word == END:
                ended.append(Hypothesis(prefix, score, score / length**search.normalize))
        alive = [((*prefix, word), score) for score, prefix, word in continuations if word != END][: search.beam_size]
        if len(ended) >= search.beam_size:
            break
    return sorted(ended, key=lambda hypothesis: -hypothesis.normalised)[: search.wanted]


def all_translations(model, source, search, prefix=(), score=0.0):
    """Every translation within the length limit."""
    limit = int(len(source) * search.max_length_factor) + search.extra_length
    length = len(prefix) + 1
    for word, log_probability in enumerate(next_log_probabilities(model, source, [prefix])[0]):
        total = score + log_probability
        if word == END:
            yield Hypothesis(prefix, total, total / length**search.normalize)
        elif word != UNKNOWN and length < limit:
            yield from all_translations(model, source, search, (*prefix, word), total)


def assert_same(found, expected):
    assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.score == pytest.approx(other.score, abs=1e-8)
        assert mine.normalised == pytest.approx(other.normalised, abs=1e-8)


SEARCHES = st.builds(
    Search,
    beam_size=st.integers(1, 6),
    normalize=st.sampled_from([0.0, 0.6, 1.0]),
    max_length_factor=st.sampled_from([0.5, 1.0]),
    extra_length=st.integers(1, 4),
    wanted=st.integers(1, 6),
)


@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([3, 4, 9, 64, 150, 200]),
    eagerness=st.sampled_from([-3.0, 1.0, 4.0]),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    search=SEARCHES,
    kind=st.sampled_from(MODELS),
)
@example(seed=1, vocabulary=200, eagerness=2.0, lengths=[3, 1, 5], search=Search(4, 0.6, 1.0, 3, 1), kind="transformer")
@example(seed=1, vocabulary=200, eagerness=2.0, lengths=[3, 1, 5], search=Search(4, 0.6, 1.0, 3, 1), kind="rnn")
@settings(max_examples=40, deadline=None)
def test_batched_search_finds_what_the_definition_finds(seed, vocabulary, eagerness, lengths, search, kind):
    model = random_model(seed, vocabulary, eagerness, kind)
    sources = random_sources(seed, vocabulary, lengths)
    search = dataclasses.replace(search, wanted=min(search.wanted, search.beam_size))
    for found, source in zip(decode(model, sources, search), sources, strict=True):
        assert_same(found, reference_beam_search(model, source, search))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wide_enough_finds_the_best_of_all_translations(seed):
    model = random_model(seed, 5)
    (source,) = random_sources(seed, 5, [2])
    search = Search(beam_size=200, max_length_factor=0.5, extra_length=3, wanted=10)
    everything = sorted(all_translations(model, source, search), key=lambda hypothesis: -hypothesis.normalised)
    (found,) = decode(model, [source], search)
    assert_same(found, everything[:10])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("beam_size", [1, 5])
def test_many_at_once_are_translated_as_one_by_one(beam_size, kind):
    model = random_model(3, 150, eagerness=2.0, kind=kind)
    sources = random_sources(7, 150, [3, 14, 1, 8, 8, 2, 5, 30])
    search = Search(beam_size, wanted=beam_size)
    for together, source in zip(decode(model, sources, search), sources, strict=True):
        assert_same(together, decode(model, [source], search)[0])


def test_the_same_search_gives_the_same_bits():
    model = random_model(3, 150, eagerness=2.0).float()
    sources = random_sources(7, 150, [3, 14, 1, 8])
    assert decode(model, sources, Search(wanted=5)) == decode(model, sources, Search(wanted=5))


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


def test_a_model_that_is_not_finite_gives_an_empty_translation():
    model = random_model(5, 20)
    with torch.no_grad():
        model.output_bias.fill_(math.nan)
    for hypotheses in decode(model, random_sources(5, 20, [4, 1]), Search()):
        assert [hypothesis.ids for hypothesis in hypotheses] == [()]
