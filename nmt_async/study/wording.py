"""Figures of a study as people read them, the same in verdicts, documents and pages."""

from __future__ import annotations

import math

from nmt_async.study.comparison import Difference, Ratio


def amount(count: float) -> str:
    """``3.92 million``, ``512``."""
    return f"{count / 1e6:.2f} million" if count >= 1e5 else f"{count:,.0f}"


def number(value: float, signed: bool = False) -> str:
    """Three digits behind the point for small values; a word for what has none."""
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "the worst (diverged)" if value > 0 else "the best (the other diverged)"
    digits = 3 if abs(value) < 10 else 1
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def times(value: float) -> str:
    """A ratio: ``1.31``; where the target was not reached, words."""
    if math.isnan(value):
        return "undefined (neither reached it)"
    if math.isinf(value):
        return "not reached"
    return f"{value:.2f}" if value else "0 (the other did not reach it)"


def figure(found: Difference | Ratio) -> str:
    """Value and interval: ``+0.420 (95 % +0.380 to +0.470)``."""
    if isinstance(found, Ratio):
        words, ends = times(found.value), (times(found.low), times(found.high))
    else:
        signed = len(found.seeds) > 1
        words, ends = number(found.value, signed), (number(found.low, signed), number(found.high, signed))
    if found.over == "nothing":
        return f"{words} (no interval)"
    if ends == (words, words):
        return words
    return f"{words} (95 % {ends[0]} to {ends[1]})"


def basis(found: Difference | Ratio) -> str:
    """What a figure rests on: ``at 4.00 million tokens, 2 seeds each, interval over seeds and sentences``."""
    parts = []
    if isinstance(found, Difference) and found.tokens:
        parts.append(f"at {amount(found.tokens)} tokens")
    if isinstance(found, Ratio) and found.target is not None:
        parts.append(f"to a cross-entropy of {number(found.target)}" if math.isfinite(found.target) else "to no target")
    counts = list(found.seeds.values())
    if len(set(counts)) == 1:
        parts.append(f"{counts[0]} seed{'' if counts[0] == 1 else 's'}{' each' if len(counts) > 1 else ''}")
    else:
        parts.append(f"{', '.join(map(str, counts[:-1]))} and {counts[-1]} seeds")
    parts.append("no interval" if found.over == "nothing" else f"interval over {found.over}")
    return ", ".join(parts)
