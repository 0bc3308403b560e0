"""Each option of the search does what it says: none is accepted and ignored."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from definitions import decode, random_model, random_sources

from nmt_async.errors import UserError
from nmt_async.options import convert, dump_yaml, from_mapping, load_yaml
from nmt_async.search.options import SamplingMethod, SearchOptions
from nmt_async.text.vocabulary import UNKNOWN
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

SOURCES = random_sources(7, 40, [9, 4, 12, 6])
LENGTHS = [len(source) for source in SOURCES]


@pytest.fixture(scope="module")
def best():
    """The best translation of each source with these options, by a model that likes to repeat itself."""
    return translations_by(random_model(11, 40, eagerness=1.0))


def translations_by(model):
    def translate(wanted=1, **options):
        search = SearchOptions(**options).search(wanted)
        return [hypotheses[0] for hypotheses in decode(model, SOURCES, search)]

    return translate


def lengths(found):
    """End marks counted."""
    return [len(hypothesis.ids) + 1 for hypothesis in found]


def runs(ids, size):
    return [ids[begin : begin + size] for begin in range(len(ids) - size + 1)]


def check_beam_size(best):
    greedy, wide = best(beam_size=1, normalize=0.0), best(beam_size=8, normalize=0.0)
    assert sum(each.score for each in wide) > sum(each.score for each in greedy) + 0.1


def check_normalize(best):
    for each in best(normalize=1.0):
        assert each.normalised == pytest.approx(each.score / (len(each.ids) + 1))
    assert sum(lengths(best(normalize=2.0))) > sum(lengths(best(normalize=0.0)))


def check_word_penalty(best):
    for each in best(word_penalty=0.25):
        length = len(each.ids) + 1
        assert each.normalised == pytest.approx((each.score - 0.25 * length) / length**0.6)
    assert sum(lengths(best(word_penalty=-2.0))) > sum(lengths(best()))


def test_greedy_search_finds_the_same_whatever_the_penalties(best):
    """So they are refused there where nobody sees the scores that they make."""
    plain = [each.ids for each in best(beam_size=1, normalize=0.0)]
    for penalties in ({"normalize": 2.0}, {"word_penalty": 3.0}, {"word_penalty": -3.0}):
        assert [each.ids for each in best(beam_size=1, **penalties)] == plain


def check_allow_unk(_):
    model = random_model(11, 40, eagerness=1.0)
    with torch.no_grad():
        model.output_bias[UNKNOWN] += 5.0
    unsure = translations_by(model)
    assert not any(UNKNOWN in each.ids for each in unsure())
    assert any(UNKNOWN in each.ids for each in unsure(allow_unk=True))


def check_min_target_length(best):
    assert min(lengths(best())) < 7 <= min(lengths(best(min_target_length=7)))


def check_max_target_length(best):
    assert max(lengths(best(max_target_length=2))) == 2
    assert max(lengths(best(min_target_length=9, max_target_length=9))) == 9


def check_min_length_factor(best):
    for length, source in zip(lengths(best(min_length_factor=1.5)), LENGTHS, strict=True):
        assert length >= int(1.5 * source)
    assert sum(lengths(best())) < 1.5 * sum(LENGTHS)


def check_max_length_factor(_):
    endless = translations_by(random_model(3, 40, eagerness=-99.0))
    assert lengths(endless(max_length_factor=0.5)) == [int(0.5 * source) + 10 for source in LENGTHS]


def check_no_repeat_ngram_size(best):
    long = {"min_target_length": 12}
    assert any(len(set(runs(each.ids, 2))) < len(runs(each.ids, 2)) for each in best(**long))
    for size in (1, 2):
        for each in best(**long, no_repeat_ngram_size=size):
            assert len(set(runs(each.ids, size))) == len(runs(each.ids, size))


def check_output_sampling(best):
    drawn = best(output_sampling=SamplingMethod())
    assert sum(each.score for each in drawn) < sum(each.score for each in best()) - 1.0
    assert [each.ids for each in best(output_sampling=SamplingMethod("topk", 1))] == [
        each.ids for each in best(beam_size=1)
    ]


def check_seed(best):
    def drawn(seed):
        return [each.ids for each in best(output_sampling=SamplingMethod(), seed=seed)]

    assert drawn(2) == drawn(2) != drawn(3)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SearchOptions)])
def test_the_option_is_not_ignored(name, best):
    globals()[f"check_{name}"](best)


def test_a_translator_draws_forces_and_aligns(model, vocabulary, sentences):
    lines = sentences[:20]

    def candidates(prefixes=None, alignment=False, **options):
        translator = LineTranslator(
            model, vocabulary, vocabulary, DecodingOptions(**options), torch.device("cpu"), alignment=alignment
        )
        return [translation.n_best[0] for translation in translator.translate(lines, prefixes=prefixes)]

    def drawn(seed, **options):
        return [each.tokens for each in candidates(output_sampling=SamplingMethod(), seed=seed, **options)]

    found = [each.tokens for each in candidates()]
    assert drawn(1) == drawn(1, mini_batch=3) != drawn(2) != found
    for each in candidates(prefixes=["the dog", "sees"] * 10, alignment=True):
        assert each.text.startswith(("the dog", "sees"))
        assert len(each.alignment) == len(each.token_scores) == len(each.tokens) + 1
    assert candidates()[0].alignment is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"word_penalty": float("nan")}, "--word-penalty: nan is not between"),
        ({"min_target_length": 0}, "--min-target-length: 0 is too small; give 1 or more"),
        ({"max_target_length": 0}, "--max-target-length: 0 is too small; give 1 or more"),
        ({"no_repeat_ngram_size": -1}, "--no-repeat-ngram-size: -1 is too small; give 0 or more"),
        ({"min_length_factor": 3.5}, r"--min-length-factor: 3.5 is not from 0 to --max-length-factor \(3\)"),
        ({"min_target_length": 8, "max_target_length": 7}, r"--min-target-length: 8 is more than .* \(7\)"),
        ({"seed": -1, "output_sampling": SamplingMethod()}, "--seed: -1 is not from 0"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        DecodingOptions(**changes)


def test_options_pass_through_a_configuration_file(tmp_path):
    fields = {field.name: field for field in dataclasses.fields(DecodingOptions)}
    typed = {"weights": "0.7,0.3", "output_sampling": "nucleus 0.9 0.7"}
    options = DecodingOptions(
        word_penalty=0.5, allow_unk=True, min_target_length=2, max_target_length=9, min_length_factor=0.5,
        no_repeat_ngram_size=3, seed=5,
        **{name: convert(fields[name], object, value) for name, value in typed.items()},
    )  # fmt: skip
    file = tmp_path / "search.yaml"
    file.write_text(dump_yaml(options), encoding="utf-8")
    assert from_mapping(DecodingOptions, load_yaml(file), str(file)) == options
