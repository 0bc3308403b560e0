"""What a page says of a single run."""

from __future__ import annotations

import math

from nmt_async.formatting import duration, number, percent, short_count
from nmt_async.report.content import Answer, Words
from nmt_async.study.result import Point, Result


def words_of(result: Result, name: str, command: str) -> Words:
    """Words for the page of one run.

    Args:
        name: of the run, for the title.
        command: that makes the page.
    """
    machines = f" on {len(result.machines)} machines" if len(result.machines) > 1 else ""
    return Words(
        title=f"Run {name}",
        question=f"How a run of {result.setting.mode} updates with {result.workers} "
        f"worker{'' if result.workers == 1 else 's'}{machines} went.",
        verdicts=(Answer(_heading(result), _story(result)),),
        verdicts_heading="In short",
        command=command,
    )


def _heading(result: Result) -> str:
    if result.diverged:
        return "It diverged"
    return "It could not go on" if result.failed else ""


def _story(result: Result) -> str:
    """How far it came, and its best and last validation."""
    parts = [why] if (why := result.diverged or result.failed) else []
    clock = " of the virtual clock" if result.cluster == "simulated" else ""
    parts.append(
        f"{result.updates:,} updates on {short_count(result.tokens)} target tokens in "
        f"{duration(result.seconds)}{clock}: "
        f"{result.tokens_per_second:,.0f} target tokens a second, {result.effective_batch:,.0f} in an update, pushes "
        f"{result.staleness_mean:.2f} updates old on average."
    )
    if result.bytes_per_push is not None:
        parts.append(
            f"A push brought {short_count(result.bytes_per_push)} bytes on average, all pushes together "
            f"{short_count(result.pushed_bytes)}."
        )
    if result.corpus_pairs:
        pairs = sum(result.corpus_pairs.values())
        shares = (
            f"{name} {count:,} ({percent(count / max(1, pairs), 1)}, {short_count(result.corpus_tokens[name])} target "
            f"tokens)"
            for name, count in result.corpus_pairs.items()
        )
        parts.append(f"Of {pairs:,} sentence pairs, each counted as often as it came: {', '.join(shares)}.")
    finite = [point for point in result.points if math.isfinite(point.cross_entropy)]
    if not finite or result.last is None:
        parts.append("It made no validation.")
    else:
        best = min(finite, key=lambda point: point.cross_entropy)
        at_end = "" if best is result.last else f" The last one, {_scores(result.last)}."
        parts.append(f"The best validation, {_scores(best)}.{at_end}")
    return "\n\n".join(parts)


def _scores(point: Point) -> str:
    bleu = "" if point.bleu is None else f" and BLEU {number(point.bleu, 1)}"
    return f"at update {point.update:,}, has cross-entropy {number(point.cross_entropy, 3)}{bleu}"
