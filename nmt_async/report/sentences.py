"""A condition beside its baseline in sentences, and what a reader must know before believing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from nmt_async.errors import UserError
from nmt_async.formatting import number, short_count
from nmt_async.quantity import Quantity
from nmt_async.report.content import Answer
from nmt_async.report.figures import basis, interval, times, value_words
from nmt_async.study.comparison import Difference, Pair, Ratio, compare
from nmt_async.study.conditions import Condition
from nmt_async.study.rescaling import Unscaled, unscaled_runs

MOST_APART = 3
"""So many conditions of other batches have a note each; more have one together."""


def beside_verdict(condition: Condition, baseline: Condition) -> Answer:
    """Whether the condition comes sooner to the quality that both reach, what it costs, and how it ends.

    The outcome is of the time; of the tokens, where the seconds are by different clocks.
    """
    pair, heading = Pair(condition, baseline), f"{condition.name} beside {baseline.name}"
    try:
        final, tokens = compare("final cross-entropy", pair), compare("tokens to quality", pair)
    except UserError as error:
        return Answer(heading, str(error), "undecided")
    assert isinstance(final, Difference)
    assert isinstance(tokens, Ratio)
    time = _ratio("seconds to quality", pair)
    paragraphs = [
        _cost_words(time, tokens, pair),
        f"{_end_words(final, baseline.name)}{_bleu_words(pair)}",
        _updating_words(pair),
        _basis_words(final, tokens),
    ]
    return Answer(heading, "\n\n".join(paragraphs), _outcome(time or tokens, in_time=time is not None))


def notes_on(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Warnings: schedules that take no account of their batches, other numbers of workers, conditions of one seed."""
    found = [(pair, different) for pair in pairs if pair.against and (different := unscaled_runs(*pair.conditions))]
    notes: list[str] = []
    if len(found) > MOST_APART:
        several = ", ".join(f"{pair.compared.name} ({different.times:.2f} times)" for pair, different in found)
        notes.append(
            f"On one schedule, updates of some hold other numbers of target tokens than those of what they are "
            f"compared with: {several}. What tells them apart may be the batch as much as staleness; compare them "
            f"at rescaled learning rates too."
        )
    else:
        notes += [
            batch_note(pair.compared.name, pair.against.name, different) for pair, different in found if pair.against
        ]
    notes += [note for pair in pairs if (note := _workers_note(pair))]
    single = dict.fromkeys(each.name for pair in pairs for each in pair.conditions if len(each.results) == 1)
    if single:
        notes.append(
            f"Of {', '.join(single)} there is one seed: where it is compared, intervals cover the validation sentences "
            f"only. They tell these runs apart, not the ways of updating."
        )
    return tuple(notes)


def batch_note(condition: str, baseline: str, different: Unscaled) -> str:
    """What the reader must know of two conditions whose schedule takes no account of their batches."""
    parts = [f"An update of {condition} holds {different.times:.2f} times the target tokens of one of {baseline}."]
    if different.rate is not None:
        root, linear = different.rate * math.sqrt(different.times), different.rate * different.times
        parts.append(
            f"Both have the learning rate {different.rate:g}, so what tells them apart may be the batch as much as "
            f"staleness. Compare a rescaled rate too: {root:.2g} is by the square root of the batch, as is usual for "
            f"Adam and Muon, {linear:.2g} by the batch itself."
        )
    if different.warmup is not None:
        parts.append(
            f"Both warm up over {different.warmup.amount:,.0f} updates, which are {different.times:.2f} times the "
            f"tokens; --lr-warmup {Quantity(float(f'{different.warmup_tokens:.2g}'), 'tokens')} is the same for both."
        )
    return " ".join(parts)


def _workers_note(pair: Pair) -> str:
    """Empty where the conditions have as many workers."""
    counts = [{result.workers for result in each.results} for each in pair.conditions]
    if len(counts) < 2 or counts[0] == counts[1]:
        return ""
    ours, theirs = (" or ".join(map(str, sorted(several))) for several in counts)
    names = [each.name for each in pair.conditions]
    return f"Workers: {names[0]} has {ours}, {names[1]} {theirs}; so their times do not tell ways of updating apart."


def _ratio(quantity: str, pair: Pair) -> Ratio | None:
    """None where the runs' seconds are by different clocks."""
    try:
        found = compare(quantity, pair)
    except UserError:
        return None
    assert isinstance(found, Ratio)
    return found


def _side(found: Difference | Ratio, even: float) -> int:
    """-1: below, 1: above, 0: the interval does not tell, or there is none."""
    if found.over == "nothing" or math.isnan(found.value):
        return 0
    return -1 if found.high < even else 1 if found.low > even else 0


def _outcome(found: Ratio, in_time: bool) -> str:
    if math.isinf(found.value):
        return "not reached"
    words = {-1: "sooner", 1: "later", 0: "undecided"}[_side(found, 1.0)]
    if words != "undecided" and not in_time:
        words = {"sooner": "fewer tokens", "later": "more tokens"}[words]
    return f"{words}, one seed" if words != "undecided" and found.over == "sentences only" else words


def _cost_words(time: Ratio | None, tokens: Ratio, pair: Pair) -> str:
    """``hybrid:4 reaches the quality of sync (cross-entropy 2.410) in 0.83 of its time (95 % 0.78 to 0.90), ...``"""
    assert pair.against is not None
    name, other = pair.compared.name, pair.against.name
    if tokens.target is None or not math.isfinite(tokens.target):
        return f"Neither {name} nor {other} comes to any quality: all their runs diverged."
    quality = f"cross-entropy {value_words(tokens.target)}"
    if math.isnan(tokens.value):
        return f"Neither {name} nor {other} comes to {quality} with all its seeds."
    if math.isinf(tokens.value) or not tokens.value:
        one, whom = (name, other) if tokens.value else (other, name)
        return f"{one} does not come to {quality} with all its seeds, as {whom} does."
    reached = f"{quality}, the best that both reach,"
    if tokens.target == _worst_best(pair.against):
        reached = f"the quality of {other} ({quality})"
    in_tokens = f"{_times_words(tokens, 'its tokens')}"
    if time is None:
        return f"{name} reaches {reached} with {in_tokens}. Their seconds are by different clocks and not compared."
    said = f"{name} reaches {reached} in {_times_words(time, f'the time of {other}')}, with {in_tokens}."
    if time.over == "sentences only":
        said += " One seed does not decide whether it comes sooner."
    elif _side(time, 1.0) == 0:
        why = "there is no interval" if time.over == "nothing" else "the interval holds 1"
        said += f" Whether it comes sooner is not decided: {why}."
    return said


def _worst_best(condition: Condition) -> float:
    """The best cross-entropy that all seeds of the condition reach."""
    best = [min(point.cross_entropy for point in result.points) for result in condition.results if result.points]
    return max(best, default=math.inf)


def _times_words(found: Ratio, what: str) -> str:
    said = interval(found)
    between = "of" if found.value < 1 else "times"
    return f"{times(found.value)} {between} {what}{f' ({said})' if said else ''}"


def _end_words(final: Difference, baseline: str) -> str:
    if math.isnan(final.value):
        return "Runs of both diverged, so neither ends better."
    if math.isinf(final.value):
        return f"A run of {'it' if final.value > 0 else baseline} diverged, so it ends worse."
    words = {-1: "It ends better", 1: "It ends worse", 0: "Neither is shown to end better"}[_side(final, 0.0)]
    if final.over == "sentences only" and _side(final, 0.0):
        words += " with the one seed that was run"
    at = f" at {short_count(final.tokens)} tokens" if final.tokens else ""
    return f"{words}:{at} its cross-entropy is {_above(final, 3)} that of {baseline}."


def _bleu_words(pair: Pair) -> str:
    try:
        found, own = compare("final BLEU", pair), compare("final BLEU", Pair(pair.compared))
    except UserError:
        return ""
    assert isinstance(found, Difference)
    if not math.isfinite(found.value):
        return ""
    return f" Its BLEU is {value_words(own.value, digits=1)}, {_above(found, 1)}."


def _above(found: Difference, digits: int) -> str:
    """``0.103 (95 % +0.094 to +0.114) above``."""
    said = interval(found, digits)
    way = "above" if found.value >= 0 else "below"
    return f"{value_words(abs(found.value), digits=digits)}{f' ({said})' if said else ''} {way}"


def _updating_words(pair: Pair) -> str:
    assert pair.against is not None
    other = pair.against.name

    def both(quantity: str, words: Callable[[float], str]) -> tuple[str, str]:
        ours, theirs = (compare(quantity, Pair(each)).value for each in pair.conditions)
        return words(ours), words(theirs)

    age = both("staleness", lambda value: number(value, 2))
    batch = both("effective batch", number)
    speed = _ratio("tokens per second", pair)
    fast = f"It trains on {_times_words(speed, f'the tokens of {other}')} a second. " if speed else ""
    return (
        f"{fast}Its pushes are {age[0]} updates old on average ({other}: {age[1]}), its updates hold {batch[0]} target "
        f"tokens ({other}: {batch[1]})."
    )


def _basis_words(final: Difference, tokens: Ratio) -> str:
    """What the figures rest on: the differences first, the ratios if they rest on something else."""
    rests = dict.fromkeys([basis(replace(final, tokens=None)), basis(replace(tokens, target=None))])
    said = "; ".join(rests)
    return f"{said[0].upper()}{said[1:]}."
