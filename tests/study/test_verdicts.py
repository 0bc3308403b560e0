"""Verdicts are computed: a claim holds, fails, or is undecided, and the sentence says on which figures."""

from __future__ import annotations

import math

import pytest
from made_results import MILLION, condition, made

from nmt_async.errors import UserError
from nmt_async.report.verdicts import finding_sentence
from nmt_async.study.claims import Choice, Claim, Criterion, Minimum, Sides
from nmt_async.study.conditions import Condition
from nmt_async.study.verdicts import Verdict, judge


def one(name: str) -> Choice:
    return Choice(name, (name,))


def criterion(
    quantity: str = "final cross-entropy",
    compare: Choice | str = "async",
    against: Choice | str | None = "sync",
    *,
    beside: Sides | None = None,
    above: float = -math.inf,
    below: float = math.inf,
    target: float | None = None,
    at: int | None = None,
) -> Criterion:
    left = one(compare) if isinstance(compare, str) else compare
    right = one(against) if isinstance(against, str) else against
    return Criterion(quantity, Sides(left, right, at), beside, above, below, target)


def verdict(*criteria: Criterion, conditions: list[Condition], tokens: int = 0, seeds: int = 2) -> Verdict:
    claim = Claim("c", "paper", "It is so.", criteria, Minimum(tokens, seeds))
    (found,) = judge([claim], {each.name: each for each in conditions})
    return found


SYNC = condition("sync", 0.0, 0.01, 0.02)
ASYNC = condition("async", 0.3, 0.31, 0.32)
"""0.3 above sync; with a spread of seeds of 0.01 each and three of them, give or take about 0.02."""


@pytest.mark.parametrize(
    ("above", "below", "outcome"),
    [
        (0.05, math.inf, "holds"),
        (0.2, 0.4, "holds"),
        (-math.inf, 0.05, "fails"),
        (0.5, math.inf, "fails"),
        (0.5, 0.7, "fails"),
        (0.3, math.inf, "undecided at this budget"),
        (-math.inf, 0.31, "undecided at this budget"),
        (0.29, 0.31, "undecided at this budget"),
    ],
)
def test_a_claim_holds_or_fails_where_the_whole_interval_lies(above: float, below: float, outcome: str) -> None:
    found = verdict(criterion(above=above, below=below), conditions=[SYNC, ASYNC])
    assert found.outcome == outcome
    (finding,) = found.findings
    assert finding.figure is not None
    assert (finding.why == "the interval spans the border") == (outcome == "undecided at this budget")


def test_the_sentence_has_the_figures_and_what_they_rest_on() -> None:
    sentence = finding_sentence(verdict(criterion(above=0.05), conditions=[SYNC, ASYNC]).findings[0])
    assert sentence.startswith("Final cross-entropy of `async` against `sync`: +0.300 (95 % +0.2")
    assert "claimed: above 0.05" in sentence
    assert "at 4.00 M tokens, 3 seeds each, interval over seeds and sentences" in sentence


def test_a_missing_condition_leaves_it_undecided_and_is_named() -> None:
    (finding,) = verdict(criterion(above=0.05), conditions=[SYNC]).findings
    assert finding.outcome == "undecided at this budget"
    assert finding.figure is None
    assert "no finished run of `async`" in finding_sentence(finding)


def test_too_few_seeds_leave_it_undecided_but_show_the_figures() -> None:
    (finding,) = verdict(criterion(above=0.05), conditions=[SYNC, condition("async", 0.3)]).findings
    assert finding.outcome == "undecided at this budget"
    assert finding.why == "fewer than 2 seeds of `async`; by these runs it holds"
    assert finding.figure is not None
    assert "+0.290" in finding_sentence(finding)
    assert "interval over sentences only" in finding_sentence(finding)


def test_too_few_tokens_leave_it_undecided() -> None:
    (finding,) = verdict(criterion(above=0.05), conditions=[SYNC, ASYNC], tokens=5 * MILLION).findings
    assert finding.why.startswith("fewer than 5.00 M tokens in `async.seed1`, `async.seed2`")
    assert verdict(criterion(above=0.05), conditions=[SYNC, ASYNC], tokens=4 * MILLION).outcome == "holds"


def test_one_seed_counts_where_the_claim_says_so() -> None:
    conditions = [condition("sync"), condition("async", 0.3)]
    found = verdict(criterion(above=0.05), conditions=conditions, seeds=1)
    assert found.outcome == "holds"
    assert "1 seed each, interval over sentences only" in finding_sentence(found.findings[0])


def test_a_run_that_diverged_early_counts_as_the_worst() -> None:
    diverged = Condition("async", tuple(made("async", seed, tokens=(MILLION,), diverged="nan") for seed in (1, 2)))
    conditions = [SYNC, diverged]
    found = verdict(criterion(above=0.05), conditions=conditions, tokens=4 * MILLION)
    assert found.outcome == "holds"
    assert "2 of 2 runs of `async` diverged" in finding_sentence(found.findings[0])
    assert verdict(criterion(below=0.05), conditions=conditions).outcome == "fails"
    sooner = criterion("tokens to quality", "sync", "async", below=1)
    assert verdict(sooner, conditions=conditions).outcome == "holds"


def test_when_one_of_the_seeds_diverged_the_worse_side_stays_open() -> None:
    some = Condition("async", (*condition("async", 0.0, 0.01).results, made("async", 3, diverged="nan")))
    assert verdict(criterion(below=0.05), conditions=[SYNC, some]).outcome == "undecided at this budget"


def test_between_conditions_that_both_diverged_nothing_is_decided() -> None:
    both = [Condition(name, tuple(made(name, seed, diverged="nan") for seed in (1, 2))) for name in ("sync", "async")]
    for each in (criterion(above=0.05), criterion(below=0.05), criterion("tokens to quality", above=1)):
        assert verdict(each, conditions=both).outcome == "undecided at this budget"


def test_all_criteria_must_hold_and_one_that_fails_is_enough() -> None:
    holds, fails, missing = criterion(above=0.05), criterion(above=0.5), criterion(compare="rnn", above=0)
    conditions = [SYNC, ASYNC]
    assert verdict(holds, holds, conditions=conditions).outcome == "holds"
    assert verdict(holds, missing, conditions=conditions).outcome == "undecided at this budget"
    assert verdict(holds, missing, fails, conditions=conditions).outcome == "fails"


def test_the_best_of_several_is_the_best_by_mean_final_cross_entropy() -> None:
    rates = [condition("async @1", 0.4, 0.4), condition("async @2", 0.1, 0.2), condition("async @3", 0.05, 0.9)]
    best = Choice("async at its best", tuple(rate.name for rate in rates))
    found = verdict(criterion(compare=best, above=0.05), conditions=[SYNC, *rates])
    sentence = finding_sentence(found.findings[0])
    assert "of `async @2` against `sync`" in sentence
    assert "`async @2` is the best of 3 that were run" in sentence
    assert "last on its side" not in sentence


def test_a_best_one_at_the_end_of_what_was_tried_is_said_to_be() -> None:
    rates = [condition("async @1", 0.1, 0.1), condition("async @2", 0.2, 0.2)]
    found = verdict(criterion(compare=Choice("best", ("async @1", "async @2")), above=0.05), conditions=[SYNC, *rates])
    assert "`async @1` is the best of 2 that were run, and the last on its side" in finding_sentence(found.findings[0])


def test_of_a_sweep_that_is_not_finished_no_best_is_chosen() -> None:
    best = Choice("best", ("async", "async @2"))
    (finding,) = verdict(criterion(compare=best, above=0.05), conditions=[SYNC, ASYNC]).findings
    assert finding.why == "no finished run of `async @2`"


def test_a_diverged_rate_is_never_the_best() -> None:
    rates = [Condition("async @1", (made("async @1", diverged="nan"),)), condition("async @2", 0.5)]
    best = Choice("best", ("async @1", "async @2"))
    found = verdict(criterion(compare=best, above=0.05), conditions=[SYNC, *rates], seeds=1)
    assert "of `async @2` against" in finding_sentence(found.findings[0])


def test_a_difference_of_differences_is_one_figure() -> None:
    rnn = [condition("rnn sync", 0.0, 0.01, 0.02), condition("rnn async", 0.05, 0.06, 0.07)]
    beside = Sides(one("rnn async"), one("rnn sync"), None)
    found = verdict(criterion(beside=beside, above=0.05), conditions=[SYNC, ASYNC, *rnn])
    assert found.outcome == "holds"
    assert finding_sentence(found.findings[0]).startswith(
        "Final cross-entropy of `async` against `sync`, less that of `rnn async` against `rnn sync`: +0.250"
    )


def test_a_gap_early_can_be_set_beside_the_one_at_the_end() -> None:
    beside = Sides(one("async"), one("sync"), None)
    found = verdict(criterion(beside=beside, at=MILLION, below=0.1), conditions=[SYNC, ASYNC])
    assert found.outcome == "holds"
    assert "`async` against `sync` at 1.00 M tokens, less that of `async` against `sync` at the end" in (
        finding_sentence(found.findings[0])
    )
    (finding,) = verdict(criterion(at=9 * MILLION, below=0.1), conditions=[SYNC, ASYNC]).findings
    assert finding.why == "no validations around 9.00 M tokens in `async.seed1`"


def test_a_value_itself_can_be_claimed() -> None:
    stale = condition("async", 0.0, 0.0, staleness={2: 1, 3: 8, 4: 1})
    found = verdict(criterion("staleness", "async", None, above=2.7, below=3.3), conditions=[stale])
    assert found.outcome == "holds"
    assert finding_sentence(found.findings[0]).startswith(
        "Staleness of `async`: 3.000; claimed: above 2.7 and below 3.3."
    )


def test_seconds_by_different_clocks_name_the_claim() -> None:
    with pytest.raises(UserError, match=r"Claim 'c': .*different clocks"):
        verdict(
            criterion("tokens per second", above=1), conditions=[SYNC, condition("async", 0.0, 0.0, profile="uneven")]
        )


def test_the_order_of_claims_and_of_conditions_changes_nothing() -> None:
    claims = [
        Claim(name, "paper", "It is so.", (criterion(above=border),)) for name, border in (("a", 0.05), ("b", 0.3))
    ]
    conditions = {"sync": SYNC, "async": ASYNC}
    forwards = {each.claim.id: each for each in judge(claims, conditions)}
    backwards = {each.claim.id: each for each in judge(claims[::-1], dict(reversed(conditions.items())))}
    assert forwards == backwards
