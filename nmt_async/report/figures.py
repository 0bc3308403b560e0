"""Figures of a study as people read them, the same in verdicts, documents and pages."""

from __future__ import annotations

import math

from nmt_async.formatting import number, short_count
from nmt_async.study.comparison import Difference, Ratio


def value_words(value: float, signed: bool = False, digits: int | None = None) -> str:
    """By default three digits behind the point for small values; a word for what has none."""
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "the worst (diverged)" if value > 0 else "the best (the other diverged)"
    return number(value, digits if digits is not None else 3 if abs(value) < 10 else 1, signed)


def times(value: float) -> str:
    """A ratio: ``1.31``; where the target was not reached, words."""
    if math.isnan(value):
        return "undefined (neither reached it)"
    if math.isinf(value):
        return "not reached"
    return number(value, 2) if value else "0 (the other did not reach it)"


def figure(found: Difference | Ratio, digits: int | None = None) -> str:
    """Value and interval: ``+0.420 (95 % +0.380 to +0.470)``, ``1.20 (95 % above 1.15)``.

    Args:
        digits: behind the point of a difference or a mean; None: as `value_words` has them.
    """
    words = times(found.value) if isinstance(found, Ratio) else value_words(found.value, len(found.seeds) > 1, digits)
    said = interval(found, digits)
    return f"{words} ({said})" if said else words


def interval(found: Difference | Ratio, digits: int | None = None) -> str:
    """``95 % 1.15 to 1.25``; empty where it says nothing beside the value."""
    if found.over == "nothing":
        return "no interval"
    if isinstance(found, Ratio):
        low, high = times(found.low), times(found.high)
        if not found.low and math.isinf(found.high):
            return "" if math.isinf(found.value) or not found.value else "95 % not bounded"
        if math.isinf(found.high) and math.isfinite(found.low):
            return f"95 % above {low}"
        if not found.low and found.high:
            return f"95 % below {high}"
        return "" if low == high == times(found.value) else f"95 % {low} to {high}"
    signed = len(found.seeds) > 1
    low, high = value_words(found.low, signed, digits), value_words(found.high, signed, digits)
    return "" if low == high == value_words(found.value, signed, digits) else f"95 % {low} to {high}"


def basis(found: Difference | Ratio) -> str:
    """What a figure rests on: ``at 4.00 M tokens, 2 seeds each, interval over seeds and sentences``."""
    parts = []
    if isinstance(found, Difference) and found.tokens:
        parts.append(f"at {short_count(found.tokens)} tokens")
    if isinstance(found, Ratio) and found.target is not None:
        parts.append(
            f"to a cross-entropy of {value_words(found.target)}" if math.isfinite(found.target) else "to no target"
        )
    counts = list(found.seeds.values())
    if len(set(counts)) == 1:
        parts.append(f"{counts[0]} seed{'' if counts[0] == 1 else 's'}{' each' if len(counts) > 1 else ''}")
    else:
        parts.append(f"{', '.join(map(str, counts[:-1]))} and {counts[-1]} seeds")
    parts.append("no interval" if found.over == "nothing" else f"interval over {found.over}")
    return ", ".join(parts)
