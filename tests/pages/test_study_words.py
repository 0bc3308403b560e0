"""What a page says of conditions beside a baseline is what the comparison found."""

from __future__ import annotations

import math

import pytest
from reading import Page
from synthetic import result, study

from nmt_async.errors import UserError
from nmt_async.pages.beside import beside_table, interval_words, times_to_quality, verdict_of
from nmt_async.pages.looks import shown_conditions
from nmt_async.pages.one_study import beside_verdict, words_of
from nmt_async.pages.page import html_page
from nmt_async.study.claims import Choice, Claim, Criterion, Sides
from nmt_async.study.comparison import Difference, Pair, Ratio, compare
from nmt_async.study.conditions import by_condition
from nmt_async.study.verdicts import judge

SEEDS = {"hybrid:4": 2, "sync": 2}


def difference(value, low, high, over="seeds and sentences"):
    return Difference(value, low, high, over, SEEDS, 5e6)


def ratio(value, low, high, over="seeds and sentences"):
    return Ratio(value, low, high, over, SEEDS, 1.8)


@pytest.mark.parametrize(
    ("found", "better_is", "words"),
    [
        (difference(0.0512, -0.1129, 0.215), "lower", "+0.051 [−0.113, +0.215]"),
        (difference(0.0512, 0, 0, "nothing"), "lower", "+0.051 [no interval]"),
        (difference(math.inf, 0, math.inf), "lower", "diverged"),
        (difference(-math.inf, -math.inf, 0), "lower", "the other diverged"),
        (difference(-math.inf, -math.inf, 0), "higher", "diverged"),
        (difference(math.nan, math.nan, math.nan), "lower", "both diverged"),
        (ratio(1.331, 1.06, 1.681), "lower", "1.331 [1.060, 1.681]"),
        (ratio(1.331, 1.06, math.inf), "lower", "1.331 [no interval]"),
        (ratio(math.inf, 2, math.inf), "lower", "not reached"),
        (ratio(0.0, 0, 1), "lower", "only it reaches it"),
        (ratio(math.nan, math.nan, math.nan), "lower", "neither reaches it"),
    ],
)
def test_a_figure_has_its_interval_or_words_for_what_happened(found, better_is, words):
    assert interval_words(found, 3, higher_is_better=better_is == "higher") == words


def test_the_table_beside_a_baseline_holds_the_comparisons():
    conditions = by_condition(study())
    table = beside_table(list(conditions.values()), conditions["sync"])
    assert table is not None
    assert [column.title for column in table.columns] == [
        "condition", "cross-entropy", "BLEU", "tokens to it", "time to it", "tokens/s",
    ]  # fmt: skip
    assert [row[0].text for row in table.rows] == ["async", "hybrid:4", "local:4"]
    pair = Pair(conditions["async"], conditions["sync"])
    assert table.rows[0][1].text == interval_words(compare("final cross-entropy", pair), 3)
    assert table.rows[0][4].text == interval_words(compare("seconds to quality", pair), 2)


def test_quantities_by_different_clocks_are_left_out():
    conditions = by_condition([result("sync"), result("async", profile="paper")])
    table = beside_table(list(conditions.values()), conditions["sync"])
    assert table is not None
    titles = [column.title for column in table.columns]
    assert "tokens to it" in titles
    assert not {"time to it", "tokens/s"} & set(titles)
    assert words_of("A", "B?", [*conditions["sync"].results, *conditions["async"].results], baseline="sync").times == ()


def test_times_are_the_comparisons_and_none_where_a_quality_is_not_reached():
    conditions = by_condition(study())
    (easy, hard) = times_to_quality(list(conditions.values()), conditions["sync"], [2.5, 1.9])
    found = compare("seconds to quality", Pair(conditions["hybrid:4"], conditions["sync"]), target=2.5)
    assert (easy.quality, easy.baseline) == ("cross-entropy 2.50", "sync")
    assert [each.condition for each in easy.ratios] == ["async", "hybrid:4", "local:4"]
    assert (easy.ratios[1].value, easy.ratios[1].low, easy.ratios[1].high) == (found.value, found.low, found.high)
    assert hard.ratios[0].value is None


def test_a_condition_that_ends_worse_and_comes_later_is_told_so():
    conditions = by_condition(study(seeds=3))
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert verdict is not None
    assert verdict.outcome == "later"
    assert verdict.text.startswith("It ends worse: ")
    pair = Pair(conditions["async"], conditions["sync"])
    assert interval_words(compare("final cross-entropy", pair), 3) in verdict.text
    assert interval_words(compare("seconds to quality", pair), 2) in verdict.text


def test_a_run_beside_itself_is_told_apart_in_nothing():
    conditions = by_condition([result("sync", 1), result("sync", 2)])
    verdict = beside_verdict(conditions["sync"], conditions["sync"])
    assert verdict is not None
    assert verdict.outcome == "undecided"
    assert verdict.text.startswith("Neither is shown to end better")


def test_a_diverged_condition_reaches_nothing():
    broken = result("async", diverged="the parameters are not finite.")
    conditions = by_condition([result("sync"), broken])
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert verdict is not None
    assert verdict.outcome == "not reached"
    assert "A run of it diverged" in verdict.text


def test_a_studys_words_have_a_verdict_for_each_condition_and_its_facts():
    words = words_of(
        "Modes", "Which?", study(), baseline="sync", notes=("one is missing",), command="nmt-async compare"
    )
    assert [verdict.heading for verdict in words.verdicts] == [
        "async beside sync", "hybrid:4 beside sync", "local:4 beside sync",
    ]  # fmt: skip
    assert words.facts["runs"] == "8"
    page = Page(html_page(words, shown_conditions(study()), ()))
    assert "one is missing" in page.text
    assert any(name.startswith("Beside sync") for name in page.tables)


def test_claims_take_the_place_of_the_conditions_beside_the_baseline():
    conditions = by_condition(study(seeds=2))
    sides = Sides(Choice("async", ("async",)), Choice("sync", ("sync",)), None)
    criterion = Criterion("final cross-entropy", sides, None, above=0.1, below=math.inf, target=None)
    judged = judge([Claim("worse", "the paper, table 2", "Async ends worse.", (criterion,))], conditions)
    words = words_of("Claims", "Which?", study(), judged=judged)
    assert words.verdicts == (verdict_of(judged[0]),)
    assert (words.verdicts[0].heading, words.verdicts[0].source) == ("Async ends worse.", "the paper, table 2")
    assert words.verdicts[0].outcome == judged[0].outcome
    assert judged[0].findings[0].sentence in words.verdicts[0].text


def test_a_baseline_without_results_is_refused():
    with pytest.raises(UserError, match="no result of hybrid:9"):
        words_of("Modes", "Which?", study(seeds=1), baseline="hybrid:9")
