"""Claims with their verdicts, and what of a study is not finished, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from nmt_async.formatting import markdown_table
from nmt_async.study.conditions import Conditions
from nmt_async.study.setting import Setting
from nmt_async.study.verdicts import Finding, Outcome, Verdict, claimed
from nmt_async.study.wording import figure

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
        lines += [f"  - {finding.outcome}: {finding.sentence}" for finding in verdict.findings]
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
