"""A study in a file: conditions by name, what they share, and sizes that choose among them.

    title: Do summed asynchronous pushes restore quality?
    question: ...
    base: {preset: tiny, norm: post, workers: 4, cluster: simulated, mini-batch-words: 512}
    conditions:
      post sync @0.001: {sync-mode: sync, learn-rate: 0.001}
      post async @0.001: {sync-mode: async, learn-rate: 0.001}
    against:
      post sync @0.001: [post * @0.001]
    sizes:
      quick: {budget: 300kt, validations: 4, seeds: [1], conditions: [post *], note: It decides nothing.}
      full:
        {budget: 3Mt, validations: 12, seeds: [1, 2], conditions: ["*"], further: {post sync @0.001: [3, 4]}}

Options are those of ``train``, by their keys in a configuration file; null leaves out what ``base`` gives. ``against``
names conditions, each with the patterns of those that are set beside it; where it is left out, nothing is compared but
what claims name. ``further`` gives conditions, or patterns of them, seeds beside those that all have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import converted, load_yaml
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.reading import as_dataclass
from nmt_async.study.setting import Setting, named
from nmt_async.training.options import TrainOptions

RESERVED = ("seed", "out", "stop-after", "cpu-threads", "dry-run")
"""Options that the study itself gives."""


@dataclass(frozen=True)
class Size:
    """One of the sizes of a study.

    Attributes:
        settings: of it, all of the first seed before those of the second.
        note: what the reader must know of this size, empty for nothing.
    """

    name: str
    settings: tuple[Setting, ...]
    note: str


@dataclass(frozen=True)
class Declaration:
    """A study.

    Attributes:
        title, question: for people.
        sizes: by name.
        against: of each condition that is set beside another, that one.
    """

    title: str
    question: str
    sizes: Mapping[str, Size]
    against: Mapping[str, str]


def read_declaration(path: Path) -> Declaration:
    """The study in ``path``.

    Raises:
        UserError: it is not one; the sentence names the key.
    """
    values = load_yaml(path)
    unknown = set(values) - {"title", "question", "base", "conditions", "against", "sizes"}
    if unknown:
        raise UserError(
            f"{path}: no key is called {shown(sorted(unknown)[0])}; see the top of nmt_async/study/declaration.py."
        )
    conditions = _mapping(path, "conditions", values.get("conditions"))
    base = _mapping(path, "base", values.get("base", {}))
    options = {name: _given({**base, **_mapping(path, f"conditions, {name}", own)}) for name, own in conditions.items()}
    for name, given in options.items():
        _check_options(path, f"condition {shown(name)}", given)
        converted(TrainOptions, given, f"{path}, condition {shown(name)}")  # a size may give what is missing here
    sizes = _mapping(path, "sizes", values.get("sizes"))
    return Declaration(
        str(values.get("title", path.stem)), str(values.get("question", "")).strip(),
        {name: _size(path, name, _mapping(path, f"sizes, {name}", size), options) for name, size in sizes.items()},
        _against(path, _mapping(path, "against", values.get("against", {})), options),
    )  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What a size says."""

    budget: str
    validations: int
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    further: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _mapping(path: Path, what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path}: {what} must be a mapping of names.")
    return value


def _against(path: Path, values: Mapping[str, Any], conditions: Collection[str]) -> dict[str, str]:
    """Of each condition that is set beside another, that one."""
    found: dict[str, str] = {}
    for baseline, patterns in values.items():
        where = f"{path}, against {shown(baseline)}"
        if baseline not in conditions:
            raise UserError(f"{where}: there is no condition of this name.")
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise UserError(f"{where}: it must be a list of conditions or of patterns such as 'post *'.")
        for condition in _named(patterns, conditions, where):
            if condition == baseline:
                continue
            if condition in found:
                raise UserError(f"{where}: {shown(condition)} is set beside {shown(found[condition])} too; keep one.")
            found[condition] = baseline
    return found


def _named(patterns: Sequence[str], conditions: Collection[str], where: str) -> list[str]:
    """The conditions that match, in the order of the patterns, each once."""
    names: dict[str, None] = {}
    for pattern in patterns:
        matching = [condition for condition in conditions if fnmatchcase(condition, pattern)]
        if not matching:
            raise UserError(f"{where}: no condition is called {shown(pattern)}.")
        names |= dict.fromkeys(matching)
    return list(names)


def _check_options(path: Path, condition: str, given: Mapping[str, Any]) -> None:
    for key in RESERVED:
        if key in given:
            raise UserError(f"{path}, {condition}: the study itself sets {key}; leave it out.")


def _size(path: Path, name: str, values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> Size:
    where = f"{path}, size {shown(name)}"
    known = [field.name for field in fields(_Asked)]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: no key is called {shown(key)}; there are {', '.join(known)}.")
    try:
        asked = as_dataclass(_Asked, {**values, **({"budget": str(values["budget"])} if "budget" in values else {})})
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: it needs budget, validations, seeds and conditions ({error}).") from None
    budget = parse_quantity(asked.budget, ("updates", "tokens", "epochs", "hours", "minutes"))
    names = _named(asked.conditions, options, where)
    _check_options(path, f"size {shown(name)}", asked.options)
    own = {**asked.options, **often(budget, asked.validations)}
    chosen = [(condition, seed) for seed in asked.seeds for condition in names]
    for pattern, more in asked.further.items():
        chosen += [(condition, seed) for seed in more for condition in _named([pattern], names, f"{where}, further")]
    seeds = list(dict.fromkeys(seed for _, seed in chosen))
    asked_of = {name: named({**options[name], **own}, f"{path}, condition {shown(name)}") for name in names}
    settings = tuple(
        Setting(condition, seed, asked_of[condition])
        for condition, seed in sorted(dict.fromkeys(chosen), key=lambda each: seeds.index(each[1]))
    )
    return Size(name, settings, asked.note.strip())


def often(budget: Quantity, validations: int) -> dict[str, Any]:
    """Where a run of a study ends, and how often it validates and reports.

    Raises:
        UserError: the budget is too small for one validation.
    """
    if validations < 1 or budget.amount / validations < 1e-9:
        raise UserError(f"a budget of {budget} has no room for {validations} validations; give 1 or more.")
    every = budget.amount / validations
    if budget.unit in ("updates", "tokens"):
        if every < 1:
            raise UserError(f"a budget of {budget} is too small for {validations} validations.")
        every = float(int(every))
    return {
        "stop-after": str(budget), "valid-freq": str(Quantity(every, budget.unit)),
        "disp-freq": str(Quantity(every / 2, budget.unit)),
        "keep-last": 1, "keep-best": 0,
    }  # fmt: skip
