"""Searches as their definitions read, and tiny models to search with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.search.beam import beam_search
from nmt_async.search.greedy import greedy_search
from nmt_async.search.options import Search
from nmt_async.search.sampling import sample
from nmt_async.search.trace import Hypothesis
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import END, UNKNOWN

TRANSFORMER = {"model": "transformer", "heads": 2, "dim_ffn": 12, "norm": "pre", "activation": "relu"}
KINDS = {
    "transformer": TRANSFORMER,
    "ssru": {**TRANSFORMER, "decoder_autoreg": "ssru", "dec_depth": 2},
    "rnn": {"model": "rnn", "dim_rnn": 12},
}
"""Of models whose decoders remember the past in different ways."""


def random_model(seed, vocabulary, eagerness=0.0, kind="transformer"):
    """A model whose output bias makes some subwords likely, the end by ``eagerness`` more."""
    configuration = ModelConfiguration.from_mapping(
        {"source_vocabulary": vocabulary, "target_vocabulary": vocabulary, "dim_emb": 8, "enc_depth": 1,
         "dec_depth": 1, "dropout": 0.0, "tied": "all", **KINDS[kind]}
    )  # fmt: skip
    model = build_model(configuration, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.output_weight.mul_(4.0 if kind == "rnn" else 2.0)
        model.output_bias.copy_(torch.randn(vocabulary, generator=generator))
        model.output_bias[END] += eagerness
    return model


def random_sources(seed, vocabulary, lengths):
    generator = torch.Generator().manual_seed(seed)
    return [torch.tensor([*torch.randint(1, vocabulary, (n - 1,), generator=generator).tolist(), END]) for n in lengths]


def decode(model, sources, search, prefixes=None):
    """What the search that ships finds, or draws, in one batch."""
    find = greedy_search if search.beam_size == 1 else beam_search
    if search.output_sampling is not None:
        find = sample
    with torch.inference_mode():
        return find(model, *pad([source.numpy() for source in sources]), search, prefixes)


def next_log_probabilities(model, source, prefixes):
    """Of the subword after each prefix, all of one length, computed anew by the forward pass."""
    rows, length = len(prefixes), len(prefixes[0]) + 1
    target = torch.tensor([[*prefix, END] for prefix in prefixes])
    batch = Batch(source.repeat(rows, 1), torch.full((rows,), len(source)), target, torch.full((rows,), length))
    with torch.no_grad():
        logits, _ = model(batch)
    return torch.log_softmax(logits.view(rows, length, -1)[:, -1], dim=1)


def mixed_log_probabilities(models, weights):
    """The same for an ensemble, as a function of source and prefixes."""
    return lambda source, prefixes: sum(
        weight * next_log_probabilities(model, source, prefixes) for model, weight in zip(models, weights, strict=True)
    )


def lengths_allowed(search, source, forced=()):
    """The shortest and the longest translation, end mark counted."""
    longest = int(len(source) * search.max_length_factor) + search.extra_length
    longest = max(
        longest if search.max_target_length is None else min(longest, search.max_target_length), len(forced) + 1
    )
    return min(longest, max(search.min_target_length, int(len(source) * search.min_length_factor))), longest


def allowed(search, source, prefix, word, forced=()):
    """Whether ``word`` may follow ``prefix``."""
    (shortest, longest), length = lengths_allowed(search, source, forced), len(prefix) + 1
    if length <= len(forced):
        return word == forced[length - 1]
    if word == END:
        return length >= shortest
    if length >= longest or (word == UNKNOWN and not search.allow_unk):
        return False
    size = search.no_repeat_ngram_size
    earlier = [prefix[begin : begin + size] for begin in range(len(prefix) - size + 1)] if size else []
    return (*prefix, word)[-size:] not in earlier


def ended(search, prefix, scores):
    """The translation whose subwords, then its end mark, have these log-probabilities."""
    score = sum(scores)
    ranked = (score - search.word_penalty * len(scores)) / len(scores) ** search.normalize
    return Hypothesis(tuple(prefix), score, ranked, tuple(scores))


def by_rank(hypotheses):
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.normalised)


def reference_beam_search(following, source, search, forced=()):
    """Beam search as its definition reads: one sentence, lists, the whole prefix computed anew at each step.

    Args:
        following: gives log-probabilities (prefixes, vocabulary) of what follows prefixes.
    """
    alive, found = [((), ())], []
    while alive:
        continuations = []
        rows = following(source, [prefix for prefix, _ in alive]).tolist()
        for (prefix, scores), log_probabilities in zip(alive, rows, strict=True):
            for word, log_probability in enumerate(log_probabilities):
                if allowed(search, source, prefix, word, forced):
                    continuations.append(((*scores, log_probability), prefix, word))
        continuations.sort(key=lambda continuation: -sum(continuation[0]))
        for scores, prefix, word in continuations[: search.beam_size]:
            if word == END:
                found.append(ended(search, prefix, scores))
        alive = [((*prefix, word), scores) for scores, prefix, word in continuations if word != END]
        del alive[search.beam_size :]
        if len(found) >= search.beam_size and alive:
            going_on = ended(search, alive[0][0][:-1], alive[0][1])  # if it ended where it is
            if by_rank(found)[search.wanted - 1].normalised >= going_on.normalised:
                break
    return by_rank(found)[: search.wanted]


def all_translations(following, source, search, forced=()):
    """Every translation that the constraints allow, best first."""
    found, alive = [], [((), ())]
    while alive:
        rows = following(source, [prefix for prefix, _ in alive]).tolist()
        continuations = [
            ((*prefix, word), (*scores, log_probability))
            for (prefix, scores), row in zip(alive, rows, strict=True)
            for word, log_probability in enumerate(row)
            if allowed(search, source, prefix, word, forced)
        ]
        found += [ended(search, words[:-1], scores) for words, scores in continuations if words[-1] == END]
        alive = [continuation for continuation in continuations if continuation[0][-1] != END]
    return by_rank(found)


def assert_same(found, expected, tolerance=1e-8):
    assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.score == pytest.approx(other.score, abs=tolerance)
        assert mine.normalised == pytest.approx(other.normalised, abs=tolerance)
        assert mine.token_scores == pytest.approx(other.token_scores, abs=tolerance)


CONSTRAINTS = {
    "word_penalty": st.sampled_from([0.0, 0.7, -0.4, -3.0]),
    "allow_unk": st.booleans(),
    "max_target_length": st.sampled_from([None, 1, 2, 4]),
    "min_target_length": st.sampled_from([1, 1, 3, 9]),
    "min_length_factor": st.sampled_from([0.0, 0.0, 1.0]),
    "no_repeat_ngram_size": st.sampled_from([0, 0, 1, 2, 3]),
}
"""Of a `Search`."""


def searches(**strategies):
    """Searches with any constraints; those that contradict each other come as near as the options allow."""

    def built(values):
        if values["max_target_length"] is not None:
            values["min_target_length"] = min(values["min_target_length"], values["max_target_length"])
        values["min_length_factor"] = min(values["min_length_factor"], values["max_length_factor"])
        return Search(**values)

    return st.fixed_dictionaries({**strategies, **CONSTRAINTS}).map(built)


NORMALIZATIONS = st.sampled_from([0.0, 0.6, 1.0, 2.0])
