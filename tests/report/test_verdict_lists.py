"""Claims by outcome, runs that are not finished, and how intervals are put into words."""

from __future__ import annotations

import math

import pytest
from made_results import condition

from nmt_async.report.figures import figure
from nmt_async.report.verdicts import claims_in_short, claims_that, unfinished_list
from nmt_async.study.claims import Choice, Claim, Criterion, Minimum, Sides
from nmt_async.study.comparison import Difference, Ratio
from nmt_async.study.conditions import by_condition
from nmt_async.study.setting import Setting
from nmt_async.study.verdicts import judge

INF = math.inf


def claim(name: str, above: float, seeds: int = 2, against: str = "sync") -> Claim:
    sides = Sides(Choice("async", ("async",)), Choice(against, (against,)), None)
    criterion = Criterion("final cross-entropy", sides, None, above, INF, None)
    return Claim(name, "the paper", f"{name} is so.", (criterion,), Minimum(0, seeds))


def test_claims_are_listed_under_their_outcome_with_their_figures() -> None:
    runs = [*condition("sync", 0.0, 0.01).results, *condition("async", 0.5, 0.51).results]
    claims = [claim("right", 0.1), claim("wrong", 2.0), claim("more", 0.1, seeds=3), claim("none", 0.1, against="rnn")]
    verdicts = judge(claims, by_condition(runs))
    right, wrong = claims_that("holds", verdicts), claims_that("fails", verdicts)
    assert right.startswith(
        "- **Holds:** right is so. ([right](#claim-right); the paper): final cross-entropy +0.500 (95 % "
    )
    assert right.endswith("claimed above 0.1.")
    assert "wrong is so." in wrong
    assert "right is so." not in wrong
    more, none = claims_that("undecided at this budget", verdicts).splitlines()
    assert more.endswith("(fewer than 3 seeds of `async`, `sync`; by these runs it holds).")
    assert none.endswith("no finished run of `rnn`.")
    assert claims_that("holds", ()) == "None."


def test_a_summary_says_of_each_claim_what_was_decided() -> None:
    runs = [*condition("sync", 0.0, 0.01).results, *condition("async", 0.5, 0.51).results]
    claims = [claim("more", 0.1, seeds=3), claim("wrong", 2.0), claim("right", 0.1)]
    assert claims_in_short(judge(claims, by_condition(runs))).splitlines() == [
        "- **Holds:** right is so. ([figures](#claim-right))",
        "- **Fails:** wrong is so. ([figures](#claim-wrong))",
        "- **Undecided at this budget:** more is so. ([figures](#claim-more))",
    ]


def test_what_is_not_finished_is_named() -> None:
    asked = [Setting(name, seed, {}) for seed in (1, 2) for name in ("sync", "async", "local:4")]
    conditions = by_condition([*condition("sync", 0.0, 0.0).results, *condition("async").results])
    text = unfinished_list(asked, conditions)
    assert text.startswith("3 of 6 runs are finished, of 3 conditions.\n\n")
    assert "- Without any run: `local:4`." in text
    assert "- With fewer seeds than asked for: `async` (1 of 2)." in text
    finished = [*conditions["sync"].results, *condition("async", 0, 0).results, *condition("local:4", 0, 0).results]
    assert unfinished_list(asked, by_condition(finished)) == "6 of 6 runs are finished, of 3 conditions."


def ratio(value: float, low: float, high: float, over: str = "seeds only") -> Ratio:
    return Ratio(value, low, high, over, {"a": 2, "b": 2}, 2.0)


def difference(value: float, low: float, high: float, over: str = "seeds only") -> Difference:
    return Difference(value, low, high, over, {"a": 2, "b": 2})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ratio(1.2, 1.1, 1.3), "1.20 (95 % 1.10 to 1.30)"),
        (ratio(1.2, 1.1, INF), "1.20 (95 % above 1.10)"),
        (ratio(1.2, 0, INF), "1.20 (95 % not bounded)"),
        (ratio(0.8, 0, 1.1), "0.80 (95 % below 1.10)"),
        (ratio(INF, 0, INF), "not reached"),
        (ratio(INF, 1.4, INF), "not reached (95 % above 1.40)"),
        (ratio(INF, INF, INF), "not reached"),
        (ratio(0, 0, 0), "0 (the other did not reach it)"),
        (ratio(1.2, 0, INF, "nothing"), "1.20 (no interval)"),
        (difference(0.42, 0.38, 0.47), "+0.420 (95 % +0.380 to +0.470)"),
        (difference(-0.42, -0.42, -0.42), "−0.420"),
        (difference(INF, INF, INF), "the worst (diverged)"),
    ],
)
def test_a_figure_says_its_interval_as_far_as_there_is_one(found: Difference | Ratio, words: str) -> None:
    assert figure(found) == words


def test_digits_can_be_chosen() -> None:
    assert figure(difference(1.064, 1.0, 1.2), digits=1) == "+1.1 (95 % +1.0 to +1.2)"
