"""The tables of a study's document in Markdown: what each condition came to, with intervals, and beside its baseline.

Two of them show two ways at once: batch size by staleness, and learning rate by way of updating. One says where a way
of updating wins in time: the runs say how many times the tokens of their baseline a quality takes, a simulation without
gradients how many times its tokens a second there are where one worker is slower than the others. What a quality takes
is held to be the same on all these clusters; runs on an uneven one say how nearly it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nmt_async.errors import UserError
from nmt_async.formatting import NONE, markdown_table, number, percent, short_count
from nmt_async.planning.simulation import even_speed
from nmt_async.report.figures import figure, times, value_words
from nmt_async.study.comparison import Pair, Ratio, compare
from nmt_async.study.conditions import Condition, Conditions, beside, curves_of, shared_words, targets_of

COLUMNS = 10


def command_anchor(name: str) -> str:
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
    return _rows_or_none(["condition", "against", "cross-entropy", "tokens", "updates", "seconds"], rows)


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
    return _rows_or_none(
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
        told = f'<a id="{command_anchor(condition.name)}"></a>`{condition.name}`{others}:'
        parts.append(f"{told}\n\n```sh\n{first.command.strip()}\n```")
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
    return f"[{condition.name}](#{command_anchor(condition.name)})"


def _seeds(condition: Condition, start: int = 0) -> str:
    return ", ".join(map(str, condition.seeds[start:]))


def _rows_or_none(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of conditions beside their baselines under their head, or that there are none."""
    return markdown_table(head, rows) if rows else "No condition here has a baseline."


FINAL = "final cross-entropy"


def isolation_table(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """Final cross-entropy by batch and staleness, what either costs, and what they cost beyond their sum.

    Of the four conditions, which is which is told by the batch and the staleness that their runs had.
    """
    corners = _corners(shown)
    if corners is None:
        found = ", ".join(link(condition) for condition in shown)
        return f"The table needs runs of its four corners, each of another batch and staleness; there are {found}."
    rows = []
    for large in (True, False):
        fresh, stale = corners[large, False], corners[large, True]
        rows.append([_batch(fresh, stale), _value(fresh), _value(stale), _above(Pair(stale, fresh))])
    costs = [Pair(corners[False, stale], corners[True, stale]) for stale in (False, True)]
    beyond = [Pair(corners[large, True], corners[large, False]) for large in (False, True)]
    rows.append(["the small batch costs", *map(_above, costs), f"beyond their sum: {_above(*beyond)}"])
    head = ["target tokens in an update", *(_staleness(corners, stale) for stale in (False, True)), "staleness costs"]
    return markdown_table(head, rows)


def rates_table(shown: Sequence[Condition], conditions: Conditions) -> str:  # noqa: ARG001
    """Final cross-entropy at each learning rate of what differs in nothing else; the best of each in bold."""
    alike: dict[str, dict[float, Condition]] = {}
    for condition in shown:
        options = dict(condition.results[0].setting.options)
        rate = options.pop("learn-rate", None)
        if isinstance(rate, int | float):
            alike.setdefault(json.dumps(options, sort_keys=True), {})[float(rate)] = condition
    columns = list(alike.values())
    names = [[condition.name for condition in at.values()] for at in columns]
    best = [min(at, key=lambda rate: _mean_end(at[rate])) for at in columns]
    rows = [
        [
            f"{rate:g}",
            *(_rate_cell(at.get(rate), first == rate and len(at) > 1) for at, first in zip(columns, best, strict=True)),
        ]
        for rate in sorted({rate for at in columns for rate in at})
    ]
    return markdown_table(["learning rate", *(shared_words(each) or each[0] for each in names)], rows)


def _corners(shown: Sequence[Condition]) -> dict[tuple[bool, bool], Condition] | None:
    """The conditions by (large batch, stale); None unless there is one of each."""
    batch = {condition.name: _mean("effective batch", condition) for condition in shown}
    age = {condition.name: _mean("staleness", condition) for condition in shown}
    middle = math.sqrt(max(batch.values()) * min(batch.values()))
    corners = {
        (batch[condition.name] > middle, age[condition.name] > max(age.values()) / 2): condition for condition in shown
    }
    return corners if len(shown) == len(corners) == 4 else None


def _mean(quantity: str, condition: Condition) -> float:
    return compare(quantity, Pair(condition)).value


def _batch(*conditions: Condition) -> str:
    return number(float(np.mean([_mean("effective batch", condition) for condition in conditions])))


def _staleness(corners: dict[tuple[bool, bool], Condition], stale: bool) -> str:
    ages = [_mean("staleness", corners[large, stale]) for large in (True, False)]
    return f"staleness {number(float(np.mean(ages)), 2)}"


def _value(condition: Condition) -> str:
    return f"[{figure(compare(FINAL, Pair(condition)))}](#{command_anchor(condition.name)})"


def _above(pair: Pair, beside: Pair | None = None) -> str:
    return figure(compare(FINAL, pair, beside))


def _mean_end(condition: Condition) -> float:
    return float(np.mean([np.inf if curve.diverged else curve.values[-1] for curve in curves_of(condition)]))


def _rate_cell(condition: Condition | None, best: bool) -> str:
    if condition is None:
        return NONE
    value = _value(condition)
    return f"**{value}**" if best else value


SPEEDS = (1.0, 0.9, 0.75, 0.5, 0.25)
"""Of the slowest worker, as a share of the others'."""


def predicted_speed(condition: Condition, speed: float) -> float:
    """Target tokens a second of the condition's way of updating, where its first worker is so much slower.

    Raises:
        UserError: its runs were not on a simulated cluster of equal workers.
    """
    result = condition.results[0]
    setting = result.setting
    if result.cluster != "simulated":
        raise UserError(
            f"{condition.name} was not run on a simulated cluster; leave it out of the map of uneven workers."
        )
    profile, tokens = str(setting.option("profile") or "paper"), int(setting.option("mini-batch-words"))
    try:
        return even_speed(setting.mode, profile, result.workers, speed, tokens, result.parameters)
    except ValueError:
        raise UserError(
            f"{condition.name} has uneven workers already; leave it out of the map of uneven workers."
        ) from None


def winning_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """How many times sooner than by the baseline a quality comes, by the slowest worker's speed.

    In bold where the whole interval says sooner and covers seeds too: of one seed nothing is decided.
    """
    rows = []
    for condition, baseline in beside(shown, conditions):
        price = compare("tokens to quality", Pair(condition, baseline))
        assert isinstance(price, Ratio)
        faster = (predicted_speed(condition, speed) / predicted_speed(baseline, speed) for speed in SPEEDS)
        rows.append([link(condition), figure(price), *(_cell(price, times_as_fast) for times_as_fast in faster)])
    head = ["condition", "tokens, times baseline's", *(f"slowest at {percent(speed)}" for speed in SPEEDS)]
    return _rows_or_none(head, rows)


def _times_sooner(price: Ratio, faster: float) -> Ratio:
    value, low, high = (faster / each if each else math.inf for each in (price.value, price.high, price.low))
    return replace(price, value=value, low=low, high=high)


def _cell(price: Ratio, faster: float) -> str:
    if not math.isfinite(price.value) or not price.value:  # one of the two never came to the other's quality
        return times(price.value)
    sooner = _times_sooner(price, faster)
    return f"**{figure(sooner)}**" if sooner.low > 1 and sooner.over.startswith("seeds") else figure(sooner)
