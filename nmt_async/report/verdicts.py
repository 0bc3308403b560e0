"""Claims with their verdicts in words and in Markdown, and what of a study is not finished."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nmt_async.formatting import markdown_table, short_count
from nmt_async.report.content import Answer
from nmt_async.report.figures import basis, figure
from nmt_async.study.claims import Choice, Criterion
from nmt_async.study.comparison import Ratio
from nmt_async.study.conditions import Condition, Conditions
from nmt_async.study.setting import Setting
from nmt_async.study.verdicts import Finding, Outcome, Verdict

OUTCOMES: dict[str, Outcome] = {"holds": "holds", "fails": "fails", "undecided": "undecided at this budget"}
"""In short, and in full."""


def verdicts_list(verdicts: Sequence[Verdict]) -> str:
    """Each claim with its verdict and the figures behind it."""
    counts = {outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in OUTCOMES.values()}
    parts = [", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "."]
    rows = [[f"[{each.claim.id}](#claim-{each.claim.id})", each.claim.says, f"**{each.outcome}**"] for each in verdicts]
    parts.append(markdown_table(["claim", "statement", "verdict"], rows))
    for verdict in verdicts:
        claim = verdict.claim
        lines = [f'- <a id="claim-{claim.id}"></a>**{claim.id}** ({claim.source}): {claim.says} **{verdict.outcome}**.']
        lines += [f"  - {finding.outcome}: {finding_sentence(finding)}" for finding in verdict.findings]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def claims_in_short(verdicts: Sequence[Verdict]) -> str:
    """Each claim with its verdict in a line, for a summary that says no more than was decided."""
    order = list(OUTCOMES.values())
    ranked = sorted(verdicts, key=lambda verdict: order.index(verdict.outcome))
    lines = [f"- {_headed(verdict)} ([figures](#claim-{verdict.claim.id}))" for verdict in ranked]
    return "\n".join(lines) or "None."


def _headed(verdict: Verdict) -> str:
    """The claim behind its verdict, so that nobody takes it for what was found."""
    return f"**{verdict.outcome[0].upper()}{verdict.outcome[1:]}:** {verdict.claim.says}"


def claims_that(outcome: Outcome, verdicts: Sequence[Verdict]) -> str:
    """The claims of one outcome, a line each, with their figures."""
    lines = [
        f"- {_headed(verdict)} ([{verdict.claim.id}](#claim-{verdict.claim.id}); {verdict.claim.source}): "
        f"{'; '.join(map(_short, verdict.findings))}."
        for verdict in verdicts
        if verdict.outcome == outcome
    ]
    return "\n".join(lines) or "None."


def _short(finding: Finding) -> str:
    criterion = finding.criterion
    if finding.figure is None:
        return finding.why
    open_words = f" ({finding.why})" if finding.why else ""
    return f"{criterion.quantity} {figure(finding.figure)}, claimed {claimed(criterion)}{open_words}"


def finding_sentence(finding: Finding) -> str:
    """What came of a criterion: the figure, what was claimed, what it rests on, and why it is not decided if so."""
    criterion, chosen, found, why = finding.criterion, finding.chosen, finding.figure, finding.why
    if found is None:
        return f"Undecided: {why}."
    early = any(sides.tokens is not None for sides in criterion.pairs)
    sides = [
        f"`{chosen[sides.compare].name}`"
        + (f" against `{chosen[sides.against].name}`" if sides.against else "")
        + (f" at {short_count(sides.tokens)} tokens" if sides.tokens is not None else " at the end" if early else "")
        for sides in criterion.pairs
    ]
    remarks = [_remark(choice, best) for choice, best in chosen.items() if len(choice.conditions) > 1]
    remarks += [
        f"{best.diverged} of {len(best.results)} runs of `{best.name}` diverged"
        for best in {best.name: best for best in chosen.values()}.values()
        if best.diverged
    ]
    quantity = criterion.quantity[0].upper() + criterion.quantity[1:]
    said = f"{quantity} of {', less that of '.join(sides)}"
    if isinstance(found, Ratio):
        said = f"{quantity} of {', over that of '.join(sides)}"
    return (
        f"{said}: {figure(found)}; claimed: {claimed(criterion)}. "
        f"({'; '.join([basis(found), *remarks, *([f'undecided: {why}'] if why else [])])})"
    )


def claimed(criterion: Criterion) -> str:
    """The range in words: ``above 0.05``."""
    ends = [("above", criterion.above), ("below", criterion.below)]
    return " and ".join(f"{word} {value:g}".replace("-", "−") for word, value in ends if math.isfinite(value))


def _remark(choice: Choice, best: Condition) -> str:
    place = choice.conditions.index(best.name)
    edge = place in (0, len(choice.conditions) - 1)
    words = f"`{best.name}` is the best of {len(choice.conditions)} that were run"
    return f"{words}, and the last on its side" if edge else words


def verdict_of(judged: Verdict) -> Answer:
    """A claim's verdict with the figures behind it and the runs that they are of."""
    alike = len({finding.outcome for finding in judged.findings}) == 1
    sentences = [
        finding_sentence(each) if alike else f"{each.outcome}: {finding_sentence(each)}" for each in judged.findings
    ]
    runs = f"Runs: {', '.join(judged.runs)}." if judged.runs else "No run of it is finished."
    return Answer(judged.claim.says, "\n\n".join([*sentences, runs]), judged.outcome, source=judged.claim.source)


def unfinished_list(asked: Sequence[Setting], conditions: Conditions) -> str:
    """Which runs that a study asks for have no result."""
    seeds: dict[str, list[int]] = {}
    for setting in asked:
        seeds.setdefault(setting.condition, []).append(setting.seed)
    have = {name: set(conditions[name].seeds) if name in conditions else set() for name in seeds}
    done = sum(len(have[name].intersection(wanted)) for name, wanted in seeds.items())
    lines = [f"{done} of {len(asked)} runs are finished, of {len(seeds)} conditions."]
    none = [f"`{name}`" for name, found in have.items() if not found]
    fewer = [
        f"`{name}` ({len(found)} of {len(seeds[name])})"
        for name, found in have.items()
        if found and not found.issuperset(seeds[name])
    ]
    lines += [f"- Without any run: {', '.join(none)}."] if none else []
    lines += [f"- With fewer seeds than asked for: {', '.join(fewer)}."] if fewer else []
    return "\n".join([lines[0], *([""] if lines[1:] else []), *lines[1:]])
