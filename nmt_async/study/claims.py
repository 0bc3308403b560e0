"""Claims that a study tests, read from a file that is written before the runs.

A claim holds if all its criteria do. A criterion names a quantity, the conditions it is compared between, and the
range in which the claim says that it lies. The verdicts are in `nmt_async.study.verdicts`.

    names:
      sync: post sync @0.001
      sync best: [post sync @0.0005, post sync @0.001, post sync @0.002]
    minimum: {tokens: 3Mt, seeds: 2}
    claims:
      - id: async-worse
        source: paper, abstract
        says: Trained asynchronously, a Transformer ends below a synchronous one.
        criteria:
          - {quantity: final cross-entropy, compare: async, against: sync, above: 0.05}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import load_yaml
from nmt_async.quantity import parse_quantity
from nmt_async.study.comparison import FINAL, QUANTITIES, TO_QUALITY


@dataclass(frozen=True)
class Choice:
    """What is compared: one condition, or of several the one with the best mean final cross-entropy.

    Attributes:
        name: as the claim calls it.
        conditions: in the order of what they vary in, so that a best one at either end can be told.
    """

    name: str
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Sides:
    """Something, and what it is compared against; None: its value itself.

    Attributes:
        tokens: where final quantities are read; None: at the end.
    """

    compare: Choice
    against: Choice | None
    tokens: int | None


@dataclass(frozen=True)
class Criterion:
    """The range in which a claim says that a comparison lies.

    Attributes:
        quantity: one of `nmt_async.study.comparison.QUANTITIES`.
        sides: what is compared.
        beside: whose comparison is taken off (for a ratio: divided by) before it is measured.
        above, below: the ends of the range; infinite: open.
        target: the cross-entropy to reach; None: the best that both reach.
    """

    quantity: str
    sides: Sides
    beside: Sides | None
    above: float
    below: float
    target: float | None

    @property
    def pairs(self) -> tuple[Sides, ...]:
        """One or two."""
        return (self.sides, self.beside) if self.beside else (self.sides,)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All that it compares."""
        return tuple(choice for pair in self.pairs for choice in (pair.compare, pair.against) if choice)


@dataclass(frozen=True)
class Minimum:
    """What it takes for a run, or a condition, to count.

    Attributes:
        tokens: target tokens that each run has seen; a run that diverged before counts nevertheless.
        seeds: of each condition.
    """

    tokens: int = 0
    seeds: int = 2


@dataclass(frozen=True)
class Claim:
    """A statement and how it is decided.

    Attributes:
        id: short, of the file's.
        source: who says so, and where.
        says: the statement.
        criteria: all of which must hold.
        minimum: for it to be decided.
    """

    id: str
    source: str
    says: str
    criteria: tuple[Criterion, ...]
    minimum: Minimum = field(default_factory=Minimum)

    @property
    def conditions(self) -> tuple[str, ...]:
        """All that it needs runs of."""
        named = (name for criterion in self.criteria for choice in criterion.choices for name in choice.conditions)
        return tuple(dict.fromkeys(named))


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims in the file.

    Raises:
        UserError: it cannot be read, or says something that no claim can; names the claim.
    """
    try:
        return _claims(load_yaml(path), str(path))
    except (ValueError, OverflowError, RecursionError) as error:  # an impossible date, a number of 400 digits
        raise UserError(f"{path} cannot be read as claims ({error}).") from None


def _claims(values: Mapping[str, Any], where: str) -> tuple[Claim, ...]:
    _check_keys(values, where, ("claims",), ("names", "minimum"))
    names = _names(values.get("names", {}), where)
    minimum = _minimum(values.get("minimum", {}), f"{where}, minimum", Minimum())
    claims: list[Claim] = []
    for number, item in enumerate(_items(values["claims"], where, "claims"), start=1):
        claim = _claim(item, f"{where}, claim {number}", names, minimum)
        if claim.id in (earlier.id for earlier in claims):
            raise UserError(f"{where}: two claims are called {shown(claim.id)}; give each an id of its own.")
        claims.append(claim)
    return tuple(claims)


def _claim(values: Any, where: str, names: Mapping[str, Choice], minimum: Minimum) -> Claim:
    if isinstance(values, dict) and isinstance(values.get("id"), str):
        where += f" ({shown(values['id'])[1:-1]})"
    _check_keys(values, where, ("id", "source", "says", "criteria"), ("minimum",))
    return Claim(
        id=_text(values["id"], where, "id"),
        source=_text(values["source"], where, "source"),
        says=_text(values["says"], where, "says"),
        criteria=tuple(_criterion(item, where, names) for item in _items(values["criteria"], where, "criteria")),
        minimum=_minimum(values.get("minimum", {}), where, minimum),
    )


def _criterion(values: Any, where: str, names: Mapping[str, Choice]) -> Criterion:
    _check_keys(
        values, f"{where}, a criterion", ("quantity", "compare"),
        ("against", "at", "beside", "above", "below", "target"),
    )  # fmt: skip
    quantity = _text(values["quantity"], where, "quantity")
    if quantity not in QUANTITIES:
        raise UserError(f"{where}: quantity {shown(quantity)} is not known; choose one of {', '.join(QUANTITIES)}.")
    sides = _sides(values, where, quantity, names)
    beside = None
    if "beside" in values:
        _check_keys(values["beside"], f"{where}, beside", ("compare", "against"), ("at",))
        beside = _sides(values["beside"], where, quantity, names)
        if sides.against is None:
            raise UserError(f"{where}: 'beside' needs an 'against' in the criterion too.")
    above, below = _number(values, where, "above", -math.inf), _number(values, where, "below", math.inf)
    if "above" not in values and "below" not in values:
        raise UserError(f"{where}: a criterion says neither 'above' nor 'below'; without, it could not fail.")
    if above >= below:
        raise UserError(f"{where}: no value is above {above:g} and below {below:g}.")
    target = _number(values, where, "target", math.nan) if "target" in values else None
    if target is not None and quantity not in TO_QUALITY:
        raise UserError(f"{where}: 'target' is a quality to reach, and means nothing for {quantity}.")
    if quantity in TO_QUALITY and sides.against is None and target is None:
        raise UserError(f"{where}: {quantity} needs an 'against' or a 'target'.")
    return Criterion(quantity, sides, beside, above, below, target)


def _sides(values: Mapping[str, Any], where: str, quantity: str, names: Mapping[str, Choice]) -> Sides:
    against = _choice(values["against"], where, names) if "against" in values else None
    tokens = _tokens(values["at"], f"{where}: 'at'") if "at" in values else None
    if tokens is not None and quantity not in FINAL:
        raise UserError(f"{where}: 'at' is where a final quantity is read, and means nothing for {quantity}.")
    return Sides(_choice(values["compare"], where, names), against, tokens)


def _choice(value: Any, where: str, names: Mapping[str, Choice]) -> Choice:
    if isinstance(value, list):
        listed = tuple(_text(item, where, "a condition") for item in _items(value, where, "a list of conditions"))
        return Choice(f"the best of {', '.join(listed)}", listed)
    name = _text(value, where, "a condition")
    return names.get(name, Choice(name, (name,)))


def _names(values: Any, where: str) -> dict[str, Choice]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: 'names' is not a mapping of names to conditions.")
    named = {}
    for key, value in values.items():
        name = _text(key, where, "a name")
        listed = value if isinstance(value, list) else [value]
        items = _items(listed, where, f"name {shown(name)}")
        named[name] = Choice(name, tuple(_text(item, where, f"name {shown(name)}") for item in items))
    return named


def _minimum(values: Any, where: str, otherwise: Minimum) -> Minimum:
    _check_keys(values, f"{where}: 'minimum'", (), ("tokens", "seeds"))
    tokens, seeds = otherwise.tokens, values.get("seeds", otherwise.seeds)
    if "tokens" in values:
        tokens = _tokens(values["tokens"], f"{where}: minimum of tokens")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UserError(f"{where}: minimum of seeds: {shown(seeds)} is not a count of runs.")
    return Minimum(tokens, seeds)


def _tokens(value: Any, what: str) -> int:
    try:
        return int(parse_quantity(str(value), allowed=("tokens",)).amount)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _check_keys(values: Any, where: str, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where} is not a mapping of {', '.join(needed + allowed)}.")
    for key in values:
        if key not in needed + allowed:
            raise UserError(f"{where}: {shown(key)} means nothing here; there are {', '.join(needed + allowed)}.")
    for key in needed:
        if key not in values:
            raise UserError(f"{where}: {shown(key)} is missing.")


def _items(values: Any, where: str, what: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {what} must be a list with something in it.")
    return values


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {what} is {shown(value)}, and must be text.")
    return value.strip()


def _number(values: Mapping[str, Any], where: str, key: str, otherwise: float) -> float:
    value = values.get(key, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or (key in values and not math.isfinite(value)):
        raise UserError(f"{where}: {shown(key)} is {shown(value)}, and must be a number.")
    return float(value)
