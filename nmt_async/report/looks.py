"""How conditions look in plots: each is told from the others without colour too.

Too many conditions for one plot are shown by families: those that are set beside one baseline, and that one.

The colours of the first three differ for readers with protanopia and deuteranopia as well (distances in CIELAB of
the colours as Machado et al. 2009 simulate them); of each there is one for a light page and one for a dark one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nmt_async.study.conditions import Condition, Conditions, by_condition, own_words, shared_words
from nmt_async.study.result import Result

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


@dataclass(frozen=True, kw_only=True)
class Shown(Condition):
    """A condition with its look.

    Attributes:
        label: in plots, where there is little room; those of a family need not say what they share.
        family: what those set beside one baseline share, as people read it: "post @0.001"; empty where all conditions
            are shown together.
    """

    look: Look
    label: str
    family: str = ""


def shown_conditions(results: Sequence[Result], against: Mapping[str, str] | None = None) -> tuple[Shown, ...]:
    """The conditions of the results, in the order in which they first come.

    Args:
        against: of each condition that is set beside another, that one.

    Raises:
        UserError: results on different data, or two of one condition and seed.
    """
    conditions = by_condition(results, against)
    families = _families(conditions) if len(conditions) > MOST_TOGETHER else {}
    if sum(map(len, families.values())) == len(conditions) and len(families) == 1:
        families = {}
    family_of = {name: baseline for baseline, members in families.items() for name in members}
    places: dict[str, int] = {}  # what has the same label looks the same in every family
    shown = []
    for name, condition in conditions.items():
        family, label = FURTHER if families else "", name
        if name in family_of:
            members = families[family_of[name]]
            family, label = shared_words(members) or family_of[name], own_words(name, members) or name
        style = look(places.setdefault(label, len(places)))
        shown.append(
            Shown(name, condition.results, condition.against, look=style, label=short_name(label), family=family)
        )
    return tuple(shown)


def _families(conditions: Conditions) -> dict[str, list[str]]:
    """Each baseline with itself and the conditions that are set beside it."""
    families: dict[str, list[str]] = {}
    for name, condition in conditions.items():
        families.setdefault(condition.against if condition.against in conditions else name, []).append(name)
    return {baseline: members for baseline, members in families.items() if len(members) > 1}


def short_name(condition: str) -> str:
    """What there is room for in a plot; the page's tables have the whole name."""
    return condition if len(condition) <= LONGEST_NAME else condition[: LONGEST_NAME - 1] + "…"
