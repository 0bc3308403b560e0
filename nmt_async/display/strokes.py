"""Small drawings in text: a sparkline, a bar, and how rows of a screen are shared out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as blocks between their lowest and highest; what is not finite is a ``×``."""
    shown = list(values[-width:]) if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return "×" * len(shown)
    low, high = min(finite), max(finite)
    step = (high - low) / (len(LEVELS) - 1) or 1.0
    return "".join(LEVELS[round((value - low) / step)] if math.isfinite(value) else "×" for value in shown)


def bar(share: float, width: int) -> tuple[str, str]:
    """The filled and the empty part (which differ without colour too) of a bar of ``width`` columns.

    It moves by half columns; what is above 0 shows at least one half.
    """
    share = min(1.0, max(0.0, share))
    halves = max(round(share * 2 * width), 1 if share else 0)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "─" * (width - len(filled))


def buckets(counts: Mapping[int, int], rows: int) -> list[tuple[str, float]]:
    """A histogram in at most ``rows`` rows: the label (``3`` or ``2-3``) of each and its share of the total."""
    total = sum(counts.values())
    if not total or rows < 1:
        return []
    size = math.ceil((max(counts) + 1) / rows)
    named = []
    for begin in range(0, max(counts) + 1, size):
        label = str(begin) if size == 1 else f"{begin}-{begin + size - 1}"
        named.append((label, sum(counts.get(value, 0) for value in range(begin, begin + size)) / total))
    return named


def share_out(spare: int, wanted: Sequence[int]) -> list[int]:
    """How many of ``spare`` rows each part gets that wants so many: one each in turn while there are any."""
    given = [0] * len(wanted)
    while spare > 0 and any(have < want for have, want in zip(given, wanted, strict=True)):
        for part, want in enumerate(wanted):
            if given[part] < want and spare > 0:
                given[part] += 1
                spare -= 1
    return given
