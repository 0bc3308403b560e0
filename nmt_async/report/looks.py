"""How conditions look in plots: each is told from the others without colour too.

Too many conditions for one plot are shown by families, which differ in nothing but how they update.

The colours of the first three differ for readers with protanopia and deuteranopia as well (distances in CIELAB of
the colours as Machado et al. 2009 simulate them); of each there is one for a light page and one for a dark one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nmt_async.study.conditions import Condition, by_condition
from nmt_async.study.result import Result
from nmt_async.study.tables import WAY

SERIES = (
    ("#0b5fb0", "#6cb2ff"), ("#d4660a", "#ff9d5c"), ("#6b2346", "#d2809b"), ("#2a8f9c", "#a5e0ea"),
    ("#7b3ff2", "#a98bff"), ("#96702c", "#e6ceac"), ("#0d7a4e", "#55cf98"), ("#545e6a", "#b3bcc7"),
)  # fmt: skip
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.4), (6, 1.6, 1.2, 1.6), (9, 2))
LONGEST_NAME = 24
MOST_TOGETHER = 6
"""So many conditions can be told from each other at a glance."""

FURTHER = "Further conditions"
"""Those of which there is no other in their family."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """Of a condition in every plot.

    Attributes:
        colour: number in `SERIES`.
        dash: lengths of strokes and gaps, in line widths; empty: solid.
        marker: as matplotlib names it.
    """

    colour: int
    dash: tuple[float, ...]
    marker: str

    @property
    def css_dash(self) -> str:
        """``stroke-dasharray`` of a line of 2 units."""
        return " ".join(f"{2 * length:g}" for length in self.dash) or "none"


def look(number: int) -> Look:
    """Of the condition with this number; the first 280 differ."""
    return Look(number % len(SERIES), DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)])


@dataclass(frozen=True)
class Shown(Condition):
    """A condition with its look.

    Attributes:
        family: of those that differ in nothing but how they update, as people read it: "post @0.001"; empty where all
            conditions are shown together.
    """

    look: Look
    family: str = ""

    @property
    def label(self) -> str:
        """In plots, where there is little room, and where those of a family need not say what they share."""
        way = WAY.search(self.name) if self.family not in ("", FURTHER) else None
        return short_name(way.group() if way else self.name)


def shown_conditions(results: Sequence[Result]) -> tuple[Shown, ...]:
    """The conditions of the results, in the order in which they first come.

    Raises:
        UserError: results on different data, or two of one condition and seed.
    """
    conditions = by_condition(results)
    sizes = Counter(map(_family, conditions))
    together = len(conditions) <= MOST_TOGETHER or len(sizes) == 1 or max(sizes.values()) == 1
    ways: dict[str, int] = {}  # each looks the same in every family
    shown = []
    for condition in conditions.values():
        family = "" if together else _family(condition.name)
        family = FURTHER if sizes[family] == 1 else family
        way = WAY.search(condition.name) if family not in ("", FURTHER) else None
        number = ways.setdefault(way.group() if way else condition.name, len(ways))
        shown.append(Shown(condition.name, condition.results, look(number), family))
    return tuple(shown)


def _family(name: str) -> str:
    return " ".join(WAY.sub("", name, count=1).split()) or "Nothing but the way of updating"


def short_name(condition: str) -> str:
    """What there is room for in a plot; the page's tables have the whole name."""
    return condition if len(condition) <= LONGEST_NAME else condition[: LONGEST_NAME - 1] + "…"
