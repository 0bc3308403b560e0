"""What a page says of conditions beside a baseline is what the comparison found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from reading import Page
from synthetic import result, study

from nmt_async.report.beside_tables import beside_table, costs_table, interval_words, times_to_quality
from nmt_async.report.figures import interval, times
from nmt_async.report.looks import shown_conditions
from nmt_async.report.one_study import words_of
from nmt_async.report.page import html_page
from nmt_async.report.sentences import beside_verdict, notes_on
from nmt_async.report.verdicts import finding_sentence, verdict_of
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
    assert (
        words_of(
            "A", "B?", [*conditions["sync"].results, *conditions["async"].results], against={"async": "sync"}
        ).times
        == ()
    )


def test_times_are_the_comparisons_and_none_where_a_quality_is_not_reached():
    conditions = by_condition(study())
    (easy, hard) = times_to_quality(list(conditions.values()), conditions["sync"], [2.5, 1.9])
    found = compare("seconds to quality", Pair(conditions["hybrid:4"], conditions["sync"]), target=2.5)
    assert (easy.quality, easy.baseline) == ("cross-entropy 2.50", "sync")
    assert [each.condition for each in easy.ratios] == ["async", "hybrid:4", "local:4"]
    assert (easy.ratios[1].value, easy.ratios[1].low, easy.ratios[1].high) == (found.value, found.low, found.high)
    assert hard.ratios[0].value is None


def of_runs(*results):
    """Their conditions, in the order of the results."""
    return list(by_condition(results).values())


def at_twice_the_speed(run, condition="hybrid:4", **options):
    """The same learning in half of the time."""
    points = tuple(replace(point, seconds=point.seconds / 2) for point in run.points)
    setting = replace(run.setting, condition=condition, options={**run.setting.options, **options})
    return replace(run, setting=setting, points=points, tokens_per_second=2 * run.tokens_per_second)


def test_a_condition_that_ends_worse_and_comes_later_is_told_so():
    conditions = by_condition(study(seeds=3))
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert verdict.outcome == "later"
    assert "It ends worse: at 5.00 M tokens its cross-entropy is " in verdict.text
    pair = Pair(conditions["async"], conditions["sync"])
    assert interval(compare("final cross-entropy", pair)) in verdict.text
    time = compare("seconds to quality", pair)
    assert f"in {times(time.value)} times the time of sync ({interval(time)}), with " in verdict.text
    assert verdict.text.endswith("3 seeds each, interval over seeds and sentences.")


def test_a_single_seed_that_ends_worse_is_told_of_as_that_seed():
    conditions = by_condition([result("async"), result("sync")])
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert "It ends worse with the one seed that was run: at 5.00 M tokens" in verdict.text


def test_the_same_learning_in_half_of_the_time_is_told_by_its_figures():
    sync = [result("sync", seed) for seed in (1, 2)]
    baseline, condition = of_runs(*sync, *map(at_twice_the_speed, sync))
    verdict = beside_verdict(condition, baseline)
    quality = max(min(point.cross_entropy for point in run.points) for run in sync)
    assert verdict.text.startswith(
        f"hybrid:4 reaches the quality of sync (cross-entropy {quality:.3f}) in 0.50 of the time of sync"
    )
    assert "It trains on 2.00 times the tokens of sync" in verdict.text
    assert "updates hold 8,160 target tokens (sync: 8,160)." in verdict.text


def test_one_seed_is_no_more_than_these_runs():
    sync = result("sync", 1)
    baseline, condition = of_runs(sync, at_twice_the_speed(sync))
    verdict = beside_verdict(condition, baseline)
    assert verdict.outcome == "sooner, one seed"
    assert "One seed does not decide whether it comes sooner." in verdict.text
    assert verdict.text.endswith("1 seed each, interval over sentences only.")
    (note,) = notes_on([Pair(condition, baseline)])
    assert note.startswith("Of hybrid:4, sync there is one seed")
    assert notes_on([Pair(*of_runs(*(result(name, seed) for name in ("hybrid:4", "sync") for seed in (1, 2))))]) == ()


def test_without_draws_and_seeds_nothing_is_decided():
    sync = result("sync", 1)
    sync = replace(sync, points=tuple(replace(point, resampled=()) for point in sync.points))
    baseline, condition = of_runs(sync, at_twice_the_speed(sync))
    verdict = beside_verdict(condition, baseline)
    assert verdict.outcome == "undecided"
    assert "Whether it comes sooner is not decided: there is no interval." in verdict.text


def test_a_run_beside_itself_is_told_apart_in_nothing():
    conditions = by_condition([result("sync", 1), result("sync", 2)])
    verdict = beside_verdict(conditions["sync"], conditions["sync"])
    assert verdict.outcome == "undecided"
    assert "Neither is shown to end better" in verdict.text


def test_a_diverged_condition_reaches_nothing():
    broken = result("async", diverged="the parameters are not finite.")
    conditions = by_condition([result("sync"), broken])
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert verdict.outcome == "not reached"
    assert "async does not come to cross-entropy" in verdict.text
    assert "A run of it diverged, so it ends worse." in verdict.text
    both = of_runs(broken, result("sync", diverged="nor these."))
    assert "all their runs diverged" in beside_verdict(*both).text


def test_seconds_by_different_clocks_leave_the_tokens():
    conditions = by_condition([result(name, seed, profile=name) for name in ("sync", "async") for seed in (1, 2)])
    verdict = beside_verdict(conditions["async"], conditions["sync"])
    assert "Their seconds are by different clocks" in verdict.text
    assert "a second." not in verdict.text
    assert verdict.outcome in ("fewer tokens", "more tokens", "undecided")


def test_a_condition_without_validations_says_why_nothing_is_said():
    verdict = beside_verdict(*of_runs(result("async", points=0), result("sync")))
    assert (verdict.outcome, "async.seed1 has no validation" in verdict.text) == ("undecided", True)


def of_batches(**options):
    """Two conditions of which one updates with a quarter of the other's batch, with these options of both."""
    runs = [result(name, seed) for name in ("async", "sync") for seed in (1, 2)]
    return of_runs(
        *(replace(run, setting=replace(run.setting, options={**run.setting.options, **options})) for run in runs)
    )


def test_other_batches_at_one_learning_rate_are_warned_of():
    (note,) = notes_on([Pair(*of_batches())])
    assert note.startswith("An update of async holds 0.25 times the target tokens of one of sync.")
    assert "0.0005 is by the square root" in note
    assert "0.00025 by the batch itself" in note
    assert "warm up" not in note
    (both,) = notes_on([Pair(*of_batches(**{"lr-warmup": "300"}))])
    assert "Both warm up over 300 updates, which are 0.25 times the tokens" in both


def test_a_learning_rate_of_its_own_is_not_warned_of():
    small, large = of_batches()
    rescaled = tuple(
        replace(run, setting=replace(run.setting, options={**run.setting.options, "learn-rate": 0.0005}))
        for run in small.results
    )
    assert notes_on([Pair(replace(small, results=rescaled), large)]) == ()


def test_other_numbers_of_workers_are_warned_of():
    runs = [result("sync", seed) for seed in (1, 2)] + [result("hybrid:4", seed, workers=1) for seed in (1, 2)]
    baseline, condition = of_runs(*runs)
    (note,) = notes_on([Pair(condition, baseline)])
    assert note.startswith("Workers: hybrid:4 has 1, sync 4;")


def test_many_conditions_of_other_batches_have_one_warning():
    pairs = [Pair(*of_batches())] * 4
    (note,) = notes_on(pairs)
    assert note.count("async (0.25 times)") == 4


def test_what_qualities_cost_is_what_the_comparison_found():
    conditions = by_condition(study())
    table = costs_table([conditions["hybrid:4"]], conditions["sync"])
    assert table is not None
    assert [column.title for column in table.columns] == [
        "condition", "cross-entropy", "tokens of sync", "times it", "time of sync", "times it",
    ]  # fmt: skip
    row = table.rows[-1]
    target, pair = float(row[1].text), Pair(conditions["hybrid:4"], conditions["sync"])
    assert row[3].text == interval_words(compare("tokens to quality", pair, target=target), 2)
    assert row[5].text == interval_words(compare("seconds to quality", pair, target=target), 2)
    clocks = of_runs(result("hybrid:4", profile="paper"), result("sync"))
    assert len(costs_table(*([clocks[0]], clocks[1])).columns) == 4
    assert costs_table([], conditions["sync"]) is None


def test_each_condition_stands_beside_its_baseline_if_there_are_runs_of_that():
    names = {
        "pre async": "async",
        "pre sync": "sync",
        "post hybrid:4": "hybrid:4",
        "post sync": "sync",
        "rnn async": "async",
    }
    runs = [
        replace(run, setting=replace(run.setting, condition=name))
        for name, mode in names.items()
        for run in (result(mode, 1), result(mode, 2))
    ]
    against = {"pre async": "pre sync", "post hybrid:4": "post sync", "rnn async": "rnn sync"}
    words = words_of("Modes", "Which?", runs, against=against)
    assert [verdict.heading for verdict in words.verdicts] == [
        "pre async beside pre sync",
        "post hybrid:4 beside post sync",
    ]
    assert [each.baseline for each in words.times] == ["pre sync", "post sync"]


def test_a_studys_words_have_a_verdict_for_each_condition_and_its_facts():
    words = words_of(
        "Modes",
        "Which?",
        study(),
        against=dict.fromkeys(("async", "hybrid:4", "local:4"), "sync"),
        notes=("one is missing",),
        command="nmt-async compare",
    )
    assert [verdict.heading for verdict in words.verdicts] == [
        "async beside sync", "hybrid:4 beside sync", "local:4 beside sync",
    ]  # fmt: skip
    assert words.facts["runs"] == "8"
    page = Page(html_page(words, shown_conditions(study()), ()))
    assert "one is missing" in page.text
    assert any(name.startswith("Beside sync") for name in page.tables)


def test_virtual_times_are_called_so():
    real = replace(result("sync"), cluster="processes", profile="")
    note = "Times{} are virtual: the profile of the simulated cluster makes them, not this machine."
    assert note.format("") in words_of("Modes", "Which?", study()).notes
    assert note.format(" of async") in words_of("Modes", "Which?", [real, result("async")]).notes
    assert not any("virtual" in each for each in words_of("Modes", "Which?", [real]).notes)


def test_claims_take_the_place_of_the_conditions_beside_the_baseline():
    conditions = by_condition(study(seeds=2))
    sides = Sides(Choice("async", ("async",)), Choice("sync", ("sync",)), None)
    criterion = Criterion("final cross-entropy", sides, None, above=0.1, below=math.inf, target=None)
    judged = judge([Claim("worse", "the paper, table 2", "Async ends worse.", (criterion,))], conditions)
    words = words_of("Claims", "Which?", study(), judged=judged)
    assert words.verdicts == (verdict_of(judged[0]),)
    assert (words.verdicts[0].heading, words.verdicts[0].source) == ("Async ends worse.", "the paper, table 2")
    assert words.verdicts[0].outcome == judged[0].outcome
    assert finding_sentence(judged[0].findings[0]) in words.verdicts[0].text
    assert words.verdicts[0].text.endswith("Runs: async.seed1, async.seed2, sync.seed1, sync.seed2.")
    unfinished = judge([Claim("worse", "the paper", "Async ends worse.", (criterion,))], {})
    assert verdict_of(unfinished[0]).text.endswith("No run of it is finished.")
