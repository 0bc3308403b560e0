"""CTranslate2 as an engine: the same translations, scores and warnings, or a reason why it does not fit."""

from __future__ import annotations

import copy
import dataclasses
import math
import random

import pytest
import torch

from nmt_async.checkpoints.model_folder import LoadedModel
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelOptions
from nmt_async.model.transformer import Transformer
from nmt_async.options import flag_of
from nmt_async.search.beam import beam_search
from nmt_async.search.options import SamplingMethod, Search, SearchOptions
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import UNKNOWN
from nmt_async.translate.engine import UNDERSTOOD, engine_named
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(vocabulary, sentences, tmp_path_factory):
    """A small model that has learnt a little to say what it reads; ``<unk>`` is likely now and then."""
    configuration = ModelOptions(preset="tiny", dim_emb=32).configuration(vocabulary.size, vocabulary.size, True)
    torch.manual_seed(1)
    model = Transformer(configuration)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    chance = random.Random(2)
    for _ in range(80):
        rows = vocabulary.encode_lines(chance.sample(sentences, 32))
        targets = [[UNKNOWN if chance.random() < 0.03 and index else index for index in row] for row in rows]
        logits, words = model(Batch(*pad(rows), *pad(targets)))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, words).backward()
        optimizer.step()
    return LoadedModel(model.eval(), vocabulary, vocabulary, configuration, tmp_path_factory.mktemp("model"))


def translator(loaded, engine, wanted=1, **options):
    made = DecodingOptions(**options)
    found = engine_named(engine, loaded, made.search(wanted), CPU, pytest.fail, made.precision)
    return LineTranslator(
        loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, made, CPU, wanted, engine=found
    )


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("normalize", [0.0, 0.6])
def test_ctranslate2_finds_what_torch_finds(loaded, sentences, beam, normalize):
    lines = ["", *sentences[:60], " ", "dog" * 3]
    options = {"beam_size": beam, "normalize": normalize, "mini_batch": 16}
    ours, theirs = (list(translator(loaded, name, **options).translate(lines)) for name in ("torch", "ctranslate2"))
    assert (ours[0], theirs[61].text) == (theirs[0], "")
    same = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
    assert len(same) >= 0.95 * len(lines)  # where <unk> is likely, it has a place in CTranslate2's beam
    for a, b in same:
        assert b.score == pytest.approx(a.score, abs=1e-4)
        assert b.n_best[0].score == pytest.approx(a.n_best[0].score, abs=1e-3)


def test_what_reaches_its_limit_or_needs_unk_is_translated_by_torch(loaded, sentences):
    lines = sentences[:20]
    options = {"beam_size": 2, "max_length_factor": 0.01}  # eleven subwords at most, end mark counted
    ours, theirs = (list(translator(loaded, name, **options).translate(lines)) for name in ("torch", "ctranslate2"))
    agree = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
    assert agree >= 19
    assert "⁇" not in "".join(translation.text for translation in theirs)


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_greedy_search_is_the_same_without_our_own(loaded, sentences, factor):
    options = DecodingOptions(beam_size=1, max_length_factor=factor)
    engine = engine_named("ctranslate2", loaded, options.search(), CPU, pytest.fail)
    rows = sorted(loaded.source_vocabulary.encode_lines(sentences[:80]), key=len, reverse=True)
    source, lengths = pad(rows)
    with torch.inference_mode():
        ours = beam_search(loaded.model, source, lengths, options.search())
    for (a,), (b,) in zip(ours, engine([rows[:50], rows[50:]]), strict=True):
        assert (b.ids, b.score) == (a.ids, pytest.approx(a.score, abs=1e-3))
        assert b.normalised == pytest.approx(a.normalised, abs=1e-3)
    texts = engine_named("ctranslate2", loaded, options.search(), CPU, pytest.fail, scores=WantedScores.NONE)
    for (a,), (b,) in zip(ours, texts([rows[:50], rows[50:]]), strict=True):
        assert (b.ids, math.isnan(b.score)) == (a.ids, True)


@pytest.mark.parametrize(("wanted", "normalize"), [(1, 0.6), (1, 0.0), (3, 0.6)])
def test_likely_unk_costs_no_search_of_our_own(loaded, sentences, wanted, normalize):
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.output_bias[UNKNOWN] += 2.0
    options = DecodingOptions(beam_size=4, normalize=normalize)
    search = options.search(wanted)
    rows = sorted(loaded.source_vocabulary.encode_lines(sentences[:40]), key=len, reverse=True)
    source, lengths = pad(rows)
    with torch.inference_mode():
        ours = beam_search(model, source, lengths, search)
        free = beam_search(model, source, lengths, dataclasses.replace(search, allow_unk=True))
    assert sum(UNKNOWN in best.ids for best, *_ in free) >= 10
    engine = engine_named("ctranslate2", dataclasses.replace(loaded, model=model), search, CPU, pytest.fail)
    found = [(a, b) for a, b in zip(ours, engine([rows[:16], rows[16:]]), strict=True) if b]
    assert len(found) >= 30  # others reached their longest length, or nothing in their beam could go on
    assert sum(a[0].ids == b[0].ids for a, b in found) >= 0.9 * len(found)
    for a, b in found:
        assert len(b) == wanted
        known = {each.ids: each for each in a}
        for each in b:
            assert UNKNOWN not in each.ids
            if each.ids in known:
                assert each.score == pytest.approx(known[each.ids].score, abs=1e-3)
                assert each.normalised == pytest.approx(known[each.ids].normalised, abs=1e-4)


def test_n_best_comes_from_ctranslate2_too(loaded, sentences):
    options = DecodingOptions(beam_size=3)
    engine = engine_named("ctranslate2", loaded, options.search(3), CPU, pytest.fail)
    rows = sorted(loaded.source_vocabulary.encode_lines(sentences[:12]), key=len, reverse=True)
    source, lengths = pad(rows)
    with torch.inference_mode():
        ours = beam_search(loaded.model, source, lengths, options.search(3))
    pairs = [(a, b) for a, b in zip(ours, engine([rows]), strict=True) if b]  # the others are left for torch to search
    assert len(pairs) >= 6
    for _, theirs in pairs:
        scores = [hypothesis.normalised for hypothesis in theirs]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    same = sum({one.ids for one in a} & {one.ids for one in b} != set() for a, b in pairs)
    assert same >= len(pairs) - 1  # where <unk> is likely, it has a place in CTranslate2's beam


def test_scores_of_subwords_come_where_they_are_asked_for(loaded, sentences):
    options = DecodingOptions(beam_size=2)
    engine = engine_named("ctranslate2", loaded, options.search(), CPU, pytest.fail, scores=WantedScores.OF_SUBWORDS)
    rows = sorted(loaded.source_vocabulary.encode_lines(sentences[:12]), key=len, reverse=True)
    found = [hypotheses[0] for hypotheses in engine([rows[:5], rows[5:]]) if hypotheses]
    assert len(found) >= 6
    for hypothesis in found:
        assert len(hypothesis.token_scores) == len(hypothesis.ids) + 1
        assert sum(hypothesis.token_scores) == pytest.approx(hypothesis.score, abs=1e-3)


@pytest.mark.parametrize("name", ["torch", "ctranslate2"])
def test_int8_is_near_in_both_engines(loaded, sentences, name):
    """Most translations stay the same, since few subwords have a rival that is only a few percent of a logit behind."""
    exact = list(translator(loaded, "torch", beam_size=2).translate(sentences[:20]))
    near = translator(loaded, name, beam_size=2, precision="int8").translate(sentences[:20])
    assert sum(a.text == b.text for a, b in zip(exact, near, strict=True)) >= 15


def test_int8_is_refused_where_ctranslate2_has_none(loaded, monkeypatch):
    """Such a processor is not at hand, so that what CTranslate2 says of it stands here."""
    monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda *_: {"float32"})
    reason = "--engine ctranslate2: --precision int8 has no kernels there on this device; give --engine torch, or auto"
    with pytest.raises(UserError, match=reason):
        engine_named("ctranslate2", loaded, Search(), CPU, pytest.fail, "int8")
    assert engine_named("ctranslate2", loaded, Search(), CPU, pytest.fail) is not None


def test_a_model_or_option_that_does_not_fit_is_refused_or_auto_falls_back(loaded, vocabulary, tmp_path):
    configuration = ModelOptions(model="rnn", preset="tiny", dim_emb=16).configuration(38, 38, True)
    recurrent = LoadedModel(build_model(configuration), vocabulary, vocabulary, configuration, tmp_path)
    with pytest.raises(UserError, match=r"--engine ctranslate2: .*of type rnn; give --engine torch, or auto"):
        engine_named("ctranslate2", recurrent, Search(), CPU, pytest.fail)
    said = []
    assert engine_named("auto", recurrent, Search(), CPU, said.append) is None
    assert len(said) == 1
    assert "torch translates, since for CTranslate2" in said[0]
    assert engine_named("auto", loaded, Search(), CPU, pytest.fail) is not None
    assert engine_named("torch", recurrent, Search(), CPU, pytest.fail) is None

    configuration = ModelOptions(preset="tiny", decoder_autoreg="ssru").configuration(38, 38, True)
    simpler = LoadedModel(build_model(configuration), vocabulary, vocabulary, configuration, tmp_path)
    with pytest.raises(UserError, match=r"--engine ctranslate2: .*this model's has an SSRU; give --engine torch"):
        engine_named("ctranslate2", simpler, Search(), CPU, pytest.fail)
    assert engine_named("auto", simpler, Search(), CPU, said.append) is None
    assert said[1].endswith("CTranslate2's decoders have self-attention, and this model's has an SSRU.")

    others = [field for field in dataclasses.fields(SearchOptions) if field.name not in UNDERSTOOD]
    for name, flag in {"alignment": "--alignment", **{field.name: flag_of(field) for field in others}}.items():
        search = Search(**{name: SamplingMethod() if name == "output_sampling" else 2})
        with pytest.raises(UserError, match=f"{flag} is unknown there, or means something else; give --engine torch"):
            engine_named("ctranslate2", loaded, search, CPU, pytest.fail)
    with pytest.raises(UserError, match="--precision int8: only Transformers compute in it; leave it out"):
        LineTranslator(recurrent.model, vocabulary, vocabulary, DecodingOptions(precision="int8"), CPU)


def test_torch_keeps_its_threads_beside_ctranslate2(loaded, sentences):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fresh = dataclasses.replace(loaded, model=copy.deepcopy(loaded.model))  # for which nothing is converted yet
        list(translator(fresh, "ctranslate2", beam_size=2).translate(sentences[:4]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
