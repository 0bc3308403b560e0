from __future__ import annotations

import itertools
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.translate.formats import Printed
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator, side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def translator(model, vocabulary):
    """Makes a translator from options; its warnings go to the list `said`."""

    def make(said=None, wanted=1, **options):
        warn = [].append if said is None else said.append
        return LineTranslator(model, vocabulary, vocabulary, DecodingOptions(**options), CPU, wanted, warn)

    return make


def texts(translations):
    return [translation.text for translation in translations]


def test_order_is_kept_whatever_the_batches(translator, sentences):
    lines = sentences[:60]
    one_by_one = texts(translator(mini_batch=1, maxi_batch=1).translate(lines))
    assert len(set(one_by_one)) > 10
    assert texts(translator(mini_batch=7, maxi_batch=3).translate(lines)) == one_by_one
    assert texts(translator(mini_batch_words=20).translate(iter(lines))) == one_by_one


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.numeric
@pytest.mark.parametrize(
    "options", [{"beam_size": 3}, {"beam_size": 1}, {"beam_size": 2, "precision": "int8"}], ids=str
)
def test_several_threads_find_what_one_finds(translator, sentences, options):
    wanted = options["beam_size"]
    torch.set_num_threads(1)
    alone = list(translator(wanted=wanted, mini_batch=5, **options).translate(sentences[:80]))
    torch.set_num_threads(3)
    assert list(translator(wanted=wanted, mini_batch=5, **options).translate(sentences[:80])) == alone


@pytest.mark.usefixtures("three_threads")
def test_batches_are_worked_on_side_by_side_each_with_its_share_of_the_threads():
    meet, seen = threading.Barrier(3), []

    def work(number):
        if number < 3:
            meet.wait(timeout=60)  # breaks where one is worked on after the other
        seen.append(torch.get_num_threads())
        return number

    assert list(side_by_side(work, [(number,) for number in range(7)], CPU)) == list(range(7))
    assert (seen, torch.get_num_threads()) == ([1] * 7, 3)
    new_thread = []
    thread = threading.Thread(target=lambda: new_thread.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new_thread == [3]


@pytest.mark.usefixtures("three_threads")
def test_one_batch_has_all_threads_and_what_fails_side_by_side_fails():
    assert list(side_by_side(torch.get_num_threads, [()], CPU)) == [3]
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda number: 1 // number, [(number,) for number in (1, 0, 1, 1)], CPU))
    assert torch.get_num_threads() == 3


def test_first_translations_come_before_the_last_lines_are_read(translator, sentences):
    endless = translator(mini_batch=4, maxi_batch=2).translate(itertools.cycle(sentences))
    assert len(list(itertools.islice(endless, 20))) == 20
    endless.close()


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=30), max_size=6))
@settings(max_examples=40, deadline=None)
def test_every_line_gives_one_line(model, vocabulary, lines):
    translator = LineTranslator(model, vocabulary, vocabulary, DecodingOptions(), CPU)
    found = texts(translator.translate(lines))
    assert len(found) == len(lines)
    assert all(len(text.splitlines()) <= 1 for text in found)
    assert all(not text for line, text in zip(lines, found, strict=True) if not line.strip())


def test_odd_lines_give_one_line_each_and_do_not_touch_the_others(translator):
    odd = ["", " \t ", "\u2028", "\x00\x07", "🦆 👩‍👩‍👧", "\ufffd", "a\u2028dog", "\r", "dog " * 10_000]
    lines = [line for line in odd for line in (line, "the small dog")]
    found = texts(translator().translate(lines))
    assert len(found) == len(lines)
    assert len(set(found[1::2])) == 1
    assert found[0] == found[2] == found[4] == ""


def test_a_line_that_is_too_long_is_cut_and_named(translator):
    said: list[str] = []
    lines = ["the dog", "", "the dog sees the cat in the garden and never runs"]
    cut = texts(translator(said, max_length=4, mini_batch=1, maxi_batch=1).translate(lines))
    assert len(said) == 1
    assert "line 3 " in said[0]
    assert "cut to 4" in said[0]
    assert len(cut) == 3


def test_n_best_holds_the_beam_in_order_and_prints_as_marian_does(translator):
    found = list(translator(wanted=3, beam_size=3, normalize=1.0).translate(["the dog runs", ""]))
    scores = [candidate.normalised for candidate in found[0].n_best]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    best = found[0].n_best[0]
    assert found[0].text == best.text
    printed = Printed(n_best=True).lines(8, found[0])
    assert printed[0] == f"7 ||| {best.text} ||| F0= {best.score:.6f} ||| {best.normalised:.6f}"
    assert Printed(n_best=True).lines(9, found[1]) == ["8 |||  ||| F0= 0.000000 ||| 0.000000"]


def test_a_model_in_training_is_searched_without_dropout_and_goes_on_training(translator, model, sentences):
    expected = texts(translator().translate(sentences[:10]))
    model.train()
    try:
        assert texts(translator().translate(sentences[:10])) == expected
        assert model.training
    finally:
        model.eval()
