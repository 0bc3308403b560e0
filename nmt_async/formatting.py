"""How numbers and tables are written for people: one way for terminal, log, page and document."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal

NONE = "–"
"""Stands where there is no value."""


def number(value: float | None, digits: int = 0, signed: bool = False) -> str:
    """``1,234``, ``2.310``, ``+0.051``, ``−0.113``: with so many digits behind the point; `NONE` for None."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    return f"{value:{'+' if signed else ''},.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 0, signed: bool = False) -> str:
    """``75 %`` for 0.75; `NONE` for None."""
    if share is None:
        return NONE
    return f"{number(100 * share, digits, signed)} %"


def short_count(count: float) -> str:
    """``7,432``, ``7.43 M``, ``7.43 G``: at most seven characters for what is below 10^13."""
    if count < 999_950:
        return f"{count:,.0f}"
    size, letter = (count / 1e9, "G") if count >= 999_950_000 else (count / 1e6, "M")
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {letter}"


def about(value: float) -> str:
    """``value`` to three digits, or two below 10: ``7,950``, ``377``, ``0.75``."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    rounded = Decimal(f"{value:.{2 if value < 10 else 3}g}")
    return f"{rounded.normalize():f}"


def clock(seconds: float) -> str:
    """``0:07``, ``12:34``, ``1:02:03``, ``3 d 4:05:06``: whole seconds that have gone by."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}:{second:02}"
    return (f"{days} d " if days else "") + f"{hour}:{minute:02}:{second:02}"


def duration(seconds: float | None) -> str:
    """``45 s``, ``28:16``, ``3:05:10``; `NONE` for None."""
    if seconds is None:
        return NONE
    return f"{seconds:.3g} s" if round(seconds) < 60 else clock(round(seconds))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool] = ()) -> str:
    """The rows under their head, in the Markdown of GitHub; cells may hold Markdown.

    Args:
        numbers: of each column, whether it is set flush right; left out: none is.
    """
    marks = ["---:" if right else "---" for right in numbers] or ["---"] * len(head)
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """A bar that is not escaped would end the cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)
