"""Amounts as Marian's users type them: ``10k`` updates, ``2e`` epochs, ``1Gt`` target tokens, ``3h`` hours.

Marian's SchedulingParameter knows updates (``u`` or nothing), epochs (``e``) and target labels (``t``) with the
factors k, M and G; hours and minutes are ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from nmt_async.errors import UserError, shown

Unit = Literal["updates", "tokens", "epochs", "hours", "minutes"]
UNITS: dict[str, Unit] = {
    "": "updates", "u": "updates", "t": "tokens", "e": "epochs", "h": "hours", "m": "minutes", "min": "minutes",
}  # fmt: skip
EXAMPLES: dict[Unit, str] = {"updates": "20k", "tokens": "1Gt", "epochs": "2e", "hours": "3h", "minutes": "30min"}
FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
MOST = 1e18
"""Above it a number is a slip of the hand."""
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]?)\s*(u|t|e|h|min|m)?")


@dataclass(frozen=True)
class Quantity:
    """An amount and its unit; ``str()`` gives text that `parse_quantity` reads back."""

    amount: float
    unit: Unit

    @property
    def seconds(self) -> float:
        """Of hours or minutes."""
        return self.amount * {"hours": 3600, "minutes": 60}[self.unit]

    def __str__(self) -> str:
        suffix = {"updates": "u", "tokens": "t", "epochs": "e", "hours": "h", "minutes": "min"}[self.unit]
        for letter in ("G", "M", "k"):
            if self.amount and self.amount % FACTORS[letter] == 0:
                return f"{int(self.amount) // FACTORS[letter]}{letter}{suffix}"
        return f"{Decimal(repr(self.amount)).normalize():f}{suffix}"


def parse_quantity(text: str, allowed: tuple[Unit, ...] = ("updates", "tokens", "epochs", "hours")) -> Quantity:
    """``text`` as an amount with its unit; a bare number counts updates.

    Raises:
        UserError: it is not a number with a known suffix, or its unit is not ``allowed`` here.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        examples = ", ".join(f"{EXAMPLES[unit]} ({unit})" for unit in allowed)
        raise UserError(f"{shown(text)} is not an amount; type a number such as {examples}.")
    number, factor, suffix = match.groups()
    unit = UNITS[suffix or ""]
    if unit not in allowed:
        raise UserError(f"{shown(text)} counts {unit}; here only {', '.join(allowed)} can be counted.")
    amount = float(number) * FACTORS[factor]
    if amount > MOST:
        raise UserError(f"{shown(text)} is too much; give an amount of at most {MOST:g}.")
    return Quantity(amount, unit)
