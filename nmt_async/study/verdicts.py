"""The verdict of each claim, computed from the results: it holds, it fails, or this budget does not decide it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nmt_async.errors import UserError, shown
from nmt_async.formatting import short_count
from nmt_async.study.claims import Choice, Claim, Criterion, Minimum
from nmt_async.study.comparison import FINAL, Difference, Pair, Ratio, compare
from nmt_async.study.conditions import Condition, Curve, curves_of, is_diverged

Outcome = Literal["holds", "fails", "undecided at this budget"]


@dataclass(frozen=True)
class Finding:
    """What came of one criterion.

    Attributes:
        criterion: of the claim.
        outcome: of it.
        figure: the comparison, None where runs of it are missing.
        why: what keeps it from being decided, empty if it is decided.
        chosen: the condition that each choice of the criterion came to, empty where runs of it are missing.
    """

    criterion: Criterion
    outcome: Outcome
    figure: Difference | Ratio | None
    why: str
    chosen: Mapping[Choice, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A claim's: it holds if all its criteria do, and fails if one does.

    Attributes:
        runs: names of the finished ones among those that it needs.
    """

    claim: Claim
    findings: tuple[Finding, ...]
    runs: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Of the claim."""
        outcomes = {finding.outcome for finding in self.findings}
        if "fails" in outcomes:
            return "fails"
        return "undecided at this budget" if "undecided at this budget" in outcomes else "holds"


def judge(claims: Sequence[Claim], conditions: Mapping[str, Condition]) -> tuple[Verdict, ...]:
    """The verdict of each claim.

    Args:
        conditions: from `nmt_async.study.conditions.by_condition`.

    Raises:
        UserError: a claim compares seconds by different clocks; names the claim.
    """
    verdicts = []
    for claim in claims:
        try:
            findings = tuple(_find(criterion, claim.minimum, conditions) for criterion in claim.criteria)
        except UserError as error:
            raise UserError(f"Claim {shown(claim.id)}: {error}") from None
        there = [conditions[name] for name in claim.conditions if name in conditions]
        runs = tuple(result.setting.name for condition in there for result in condition.results)
        verdicts.append(Verdict(claim, findings, runs))
    return tuple(verdicts)


def best_of(choice: Choice, conditions: Mapping[str, Condition]) -> Condition:
    """Of the conditions to choose from, the one with the best mean final cross-entropy; the first of equal ones.

    All must have runs with validations.
    """

    def final(condition: Condition) -> float:
        curves = curves_of(condition)
        return float(np.mean([np.inf if curve.diverged else curve.values[-1] for curve in curves]))

    return min((conditions[name] for name in choice.conditions), key=final)


def _find(criterion: Criterion, minimum: Minimum, conditions: Mapping[str, Condition]) -> Finding:
    lacking = _lacking(criterion, conditions)
    if lacking:
        return Finding(criterion, "undecided at this budget", None, lacking)
    chosen = {choice: best_of(choice, conditions) for choice in criterion.choices}
    pairs = [
        Pair(chosen[sides.compare], chosen[sides.against] if sides.against else None, sides.tokens)
        for sides in criterion.pairs
    ]
    found = compare(criterion.quantity, *pairs, target=criterion.target)
    short = _short(criterion, minimum, conditions)
    lies = _outcome(criterion, found)
    outcome: Outcome = "undecided at this budget" if short else lies
    if short and lies != outcome:
        short += f"; by these runs it {lies}"
    why = short or ("" if outcome != "undecided at this budget" else _why_open(found))
    return Finding(criterion, outcome, found, why, chosen)


def _outcome(criterion: Criterion, found: Difference | Ratio) -> Outcome:
    """By where the whole interval lies; on a border it is undecided. The worst lies beyond any finite border."""
    above, below = criterion.above, criterion.below
    if (found.low > above or above == -math.inf) and (found.high < below or below == math.inf):
        return "holds"
    return "fails" if found.high < above or found.low > below else "undecided at this budget"


def _why_open(found: Difference | Ratio) -> str:
    if found.over == "nothing":
        return "one seed and no draws of sentences give no interval"
    return "the interval spans the border"


def _lacking(criterion: Criterion, conditions: Mapping[str, Condition]) -> str:
    """What there must be for any figure, and is not."""
    needed = dict.fromkeys(name for choice in criterion.choices for name in choice.conditions)
    missing = [name for name in needed if name not in conditions]
    if missing:
        return f"no finished run of {_listed(missing)}"
    metric = FINAL.get(criterion.quantity, "cross-entropy")
    read_at = [sides.tokens for sides in criterion.pairs if sides.tokens is not None]
    for result in (result for name in needed for result in conditions[name].results if not is_diverged(result)):
        at = Curve.of(result, "tokens", metric).at
        if not len(at):
            return f"no validation with {metric} in `{result.setting.name}`"
        outside = [tokens for tokens in read_at if not at[0] <= tokens <= at[-1]]
        if outside:
            return f"no validations around {short_count(outside[0])} tokens in `{result.setting.name}`"
    return ""


def _short(criterion: Criterion, minimum: Minimum, conditions: Mapping[str, Condition]) -> str:
    """Which runs are too few or too short for the claim to be decided."""
    needed = dict.fromkeys(name for choice in criterion.choices for name in choice.conditions)
    few = [name for name in needed if len(conditions[name].results) < minimum.seeds]
    if few:
        return f"fewer than {minimum.seeds} seeds of {_listed(few)}"
    brief = [
        result.setting.name
        for name in needed
        for result in conditions[name].results
        if not is_diverged(result) and result.points[-1].tokens < minimum.tokens
    ]
    return f"fewer than {short_count(minimum.tokens)} tokens in {_listed(brief)}" if brief else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = [f"`{name}`" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
