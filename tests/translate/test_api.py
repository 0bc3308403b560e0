from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import fields

import pytest
import torch

import nmt_async
from nmt_async import Scorer, Translator, UserError
from nmt_async.checkpoints.model_folder import save_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.score.options import ScoringOptions
from nmt_async.translate.options import DecodingOptions


@pytest.fixture(scope="module")
def folder(model, vocabulary, tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "model"
    layout = FlatLayout(model)
    save_model(path, model.configuration, layout.named(layout.gather(model)), vocabulary.path, vocabulary.path)
    return path


@pytest.fixture
def translator(folder):
    return Translator(folder, threads=1)


def test_importing_the_package_does_not_import_torch():
    program = (
        "import sys, nmt_async; assert 'torch' not in sys.modules; "
        "assert {'Translator', 'Scorer'} <= set(dir(nmt_async)); assert 'torch' not in sys.modules; "
        "from nmt_async import UserError; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_short_name_is_there_and_no_other():
    assert all(getattr(nmt_async, name) for name in nmt_async.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Translater'"):
        nmt_async.Translater  # noqa: B018


def test_what_may_be_given_in_python_is_what_the_commands_take(translator, folder):
    scorer = Scorer(folder)
    translate, score = functools.partial(translator.translate, []), functools.partial(scorer.score, [], [])
    for call, declaration in ((translate, DecodingOptions), (score, ScoringOptions)):
        for field in fields(declaration):
            if field.name in ("device", "threads", "weights"):
                with pytest.raises(TypeError, match=f"there is no option {field.name} here; there are "):
                    call(**{field.name: field.default})
            else:
                assert call(**{field.name: field.default}) == []


def test_a_list_is_translated_as_a_stream_is(translator, sentences):
    lines = [*sentences[:10], ""]
    found = translator.translate(lines, beam_size=3, n_best=3)
    assert found == list(translator.stream(iter(lines), beam_size=3, n_best=3))
    assert found[-1].text == ""
    assert [len(translation.n_best) for translation in found] == [3] * 10 + [1]
    assert all(translation.text == translation.n_best[0].text for translation in found)


def test_options_change_the_search(translator):
    line = ["the dog sees the cat in the garden"]
    wide, greedy = translator.translate(line, beam_size=8), translator.translate(line, beam_size=1)
    assert wide[0].n_best[0].score > greedy[0].n_best[0].score
    drawn = [translator.translate(line, output_sampling="full 2.0", seed=seed)[0].text for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_prefixes_and_alignments(translator):
    found = translator.translate(["the dog", "a cat"], prefixes=["or never", ""], alignment=True)
    assert found[0].text.startswith("or never")
    best = found[1].n_best[0]
    assert best.alignment is not None
    assert len(best.alignment) == len(best.token_scores) == len(best.tokens) + 1
    assert all(sum(row) == pytest.approx(1.0, abs=1e-4) for row in best.alignment)
    with pytest.raises(ValueError, match="shorter"):
        translator.translate(["the dog", "a cat"], prefixes=["a"])


def test_several_of_the_same_model_are_that_model(folder, translator, sentences):
    two = Translator([folder, str(folder)], weights=[0.25, 0.75], threads=1)
    for one, other in zip(translator.translate(sentences[:10]), two.translate(sentences[:10]), strict=True):
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_scorer_finds_what_the_translator_found(folder, translator, sentences):
    found = translator.translate(sentences[:30], normalize=1.0)
    scores = Scorer(folder).score(sentences[:30], [translation.text for translation in found], normalize=1.0)
    same = [
        (translation, scored)
        for translation, scored in zip(found, scores, strict=True)
        if scored.tokens == translation.n_best[0].tokens
    ]
    assert len(same) > 5
    for translation, scored in same:
        assert scored.score == pytest.approx(translation.n_best[0].score, abs=1e-4)
        assert scored.normalised == pytest.approx(translation.score, abs=1e-4)


def test_mistakes_are_told(folder, translator, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Translator(tmp_path / "absent")
    with pytest.raises(UserError, match="--device"):
        Translator(folder, device="cuda:99")
    with pytest.raises(UserError, match="--weights: 1 weight for 2 models"):
        Translator([folder, folder], weights=[1.0])
    with pytest.raises(UserError, match="--beam-size: 0"):
        translator.translate(["a"], beam_size=0)
    with pytest.raises(UserError, match=r"are not weights; give a number from 0 to 1000"):
        Translator([folder, folder], weights="1e300 1")
    with pytest.raises(UserError, match="there is no model; name one or more"):
        Translator([])
    with pytest.raises(UserError, match="n_best: 0"):
        translator.translate(["a"], n_best=0)
    with pytest.raises(UserError, match="--precision: 'int4' is not known; give float32 or int8"):
        translator.translate(["a"], precision="int4")
    with pytest.raises(TypeError, match="b'a' is no line: give str, not bytes"):
        translator.translate([b"a"])
    with pytest.raises(TypeError, match="not one str"):
        translator.translate(["a", "b"], prefixes="ab")
    with pytest.raises(TypeError, match="not one str"):
        translator.translate("the dog")
    with pytest.raises(TypeError, match="beam"):
        translator.translate(["a"], beam=3)
    with pytest.raises(ValueError, match="shorter"):
        Scorer(folder).score(["a", "b"], ["a"])


def test_warnings_go_where_one_wants_them(folder, capsys):
    said: list[str] = []
    Translator(folder, warn=said.append).translate(["dog " * 20], max_length=8)
    assert said == ["line 1 has 21 subwords and is cut to 8."]
    Translator(folder).translate(["dog " * 20], max_length=8)
    assert "line 1 has 21 subwords" in capsys.readouterr().err


def test_threads_are_set(folder):
    before = torch.get_num_threads()
    try:
        Translator(folder, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
