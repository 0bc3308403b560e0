"""The tables of a study in Markdown: what each condition came to, with intervals, and beside its baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from nmt_async.formatting import NONE, markdown_table, number, percent, short_count
from nmt_async.study.comparison import Pair, Ratio, compare
from nmt_async.study.conditions import Condition, Conditions, beside, curves_of, targets_of
from nmt_async.study.wording import figure, times, value_words

COLUMNS = 10


def anchor(name: str) -> str:
    """Of a condition's command in a document."""
    return "run-" + re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def final_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """Final cross-entropy, how far it is above the baseline's at equal tokens, and BLEU if there were translations."""
    last = [result.last for condition in shown for result in condition.results if result.last]
    bleu = bool(last) and all(point.bleu is not None for point in last)
    head = ["condition", "seeds", "tokens", "cross-entropy", "above baseline", *(["BLEU"] if bleu else [])]
    rows = []
    for condition in shown:
        baseline = conditions.get(condition.against)
        value = compare("final cross-entropy", Pair(condition))
        above = figure(compare("final cross-entropy", Pair(condition, baseline))) if baseline else NONE
        score = [figure(compare("final BLEU", Pair(condition)), digits=1)] if bleu else []
        tokens = min(result.tokens for result in condition.results)
        rows.append([link(condition), _seeds(condition), short_count(tokens), figure(value), above, *score])
    return markdown_table(head, rows)


def updating_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """How the gradients became updates: updates, effective batch, staleness, waiting, speed."""
    head = [
        "condition", "updates", "effective batch (tokens)", "staleness (updates)", "waiting", "tokens/s",
        "over baseline",
    ]  # fmt: skip
    rows = []
    for condition in shown:
        baseline = conditions.get(condition.against)
        mean = {
            name: compare(name, Pair(condition)).value
            for name in ("effective batch", "staleness", "waiting share", "tokens per second")
        }
        updates = float(np.mean([result.updates for result in condition.results]))
        speed = times(compare("tokens per second", Pair(condition, baseline)).value) if baseline else NONE
        rows.append(
            [
                link(condition), number(updates), number(mean["effective batch"]), number(mean["staleness"], 2),
                percent(mean["waiting share"], 1), number(mean["tokens per second"]), speed,
            ]
        )  # fmt: skip
    return markdown_table(head, rows)


def quality_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """What the best quality that both reach costs, as ratios to the baseline: tokens, updates, seconds."""
    kinds = ("tokens to quality", "updates to quality", "seconds to quality")
    rows = []
    for condition, baseline in beside(shown, conditions):
        found = [compare(kind, Pair(condition, baseline)) for kind in kinds]
        target = found[0].target if isinstance(found[0], Ratio) else None
        rows.append([link(condition), link(baseline), value_words(target or np.inf), *map(figure, found)])
    return beside_table(["condition", "against", "cross-entropy", "tokens", "updates", "seconds"], rows)


def targets_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """Tokens and seconds to several qualities, as ratios to the baseline; the first row of each is the hardest."""
    rows = []
    for condition, baseline in beside(shown, conditions):
        for target in targets_of([condition, baseline]):
            tokens, seconds = (
                compare(f"{axis} to quality", Pair(baseline), target=target).value for axis in ("tokens", "seconds")
            )
            more_tokens, more_seconds = (
                figure(compare(f"{axis} to quality", Pair(condition, baseline), target=target))
                for axis in ("tokens", "seconds")
            )
            own = _reached(tokens, short_count(tokens)), _reached(seconds, number(seconds))
            rows.append([link(condition), f"{target:.2f}", own[0], more_tokens, own[1], more_seconds])
    return beside_table(
        ["condition", "cross-entropy", "tokens of baseline", "times", "seconds of baseline", "times"], rows
    )


def course_table(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """Cross-entropy over tokens, mean over seeds, at even steps up to the shortest run's end."""
    curves = {condition.name: curves_of(condition) for condition in shown}
    ends = [float(curve.at[-1]) for several in curves.values() for curve in several if not curve.diverged]
    starts = [float(curve.at[0]) for several in curves.values() for curve in several if not curve.diverged]
    if not ends:
        return "All runs diverged."
    steps = [step for step in np.linspace(0, min(ends), COLUMNS + 1)[1:] if step >= max(starts) or step == min(ends)]
    rows = []
    for condition in shown:
        values = [float(np.mean([curve.value_at(step) for curve in curves[condition.name]])) for step in steps]
        rows.append([link(condition), *(value_words(value) if np.isfinite(value) else "diverged" for value in values)])
    return markdown_table(["million tokens", *(f"{step / 1e6:.2f}" for step in steps)], rows)


def commands_list(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """The command of each condition's first run, for its figures to point to."""
    parts = []
    for condition in shown:
        first = condition.results[0]
        others = f", with seed {first.setting.seed}; also {_seeds(condition, 1)}" if len(condition.results) > 1 else ""
        parts.append(
            f'<a id="{anchor(condition.name)}"></a>`{condition.name}`{others}:\n\n```sh\n{first.command.strip()}\n```'
        )
    return "\n\n".join(parts)


def runs_paragraph(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """How many runs the document rests on, what they took and where."""
    results = [result for condition in shown for result in condition.results]
    hours = sum(result.wall_seconds or 0.0 for result in results) / 3600
    tokens = [result.tokens for result in results]
    seeds = sorted({result.setting.seed for result in results})
    where = sorted({_machine(result.environment) for result in results})
    parameters = sorted({result.parameters for result in results})
    few, many = short_count(min(tokens)), short_count(max(tokens))
    return (
        f"{len(results)} runs of {len(shown)} conditions, seeds {', '.join(map(str, seeds))}, "
        f"{few if few == many else f'{few} to {many}'} target tokens each; models of "
        f"{' and '.join(short_count(count) for count in parameters)} parameters; {hours:.1f} hours in all, "
        f"on {'; '.join(where)}. Data `{results[0].data[:12]}`. "
        f"Of the runs, {sum(condition.diverged for condition in shown)} diverged."
    )


def _machine(environment: Mapping[str, object]) -> str:
    shown = [f"{name} {environment[name]}" for name in sorted(environment)]
    return ", ".join(shown) if shown else "an unknown machine"


def _reached(value: float, words: str) -> str:
    return words if np.isfinite(value) else "not reached"


def link(condition: Condition) -> str:
    """The condition's name, leading to its command."""
    return f"[{condition.name}](#{anchor(condition.name)})"


def _seeds(condition: Condition, start: int = 0) -> str:
    return ", ".join(map(str, condition.seeds[start:]))


def beside_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of conditions beside their baselines under their head, or that there are none."""
    return markdown_table(head, rows) if rows else "No condition here has a baseline."
