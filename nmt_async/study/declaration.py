"""A study in a file: conditions by name, what they share, and sizes that choose among them.

    title: Do summed asynchronous pushes restore quality?
    question: ...
    base: {preset: tiny, norm: post, workers: 4, cluster: simulated, mini-batch-words: 512}
    conditions:
      post sync @0.001: {sync-mode: sync, learn-rate: 0.001}
      post async @0.001: {sync-mode: async, learn-rate: 0.001}
    sizes:
      quick: {budget: 300kt, validations: 4, seeds: [1], conditions: [post *], note: It decides nothing.}
      full: {budget: 3Mt, validations: 12, seeds: [1, 2], conditions: ["*"]}

Options are those of ``train``, by their keys in a configuration file; null leaves out what ``base`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import converted, from_mapping, load_yaml
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.reading import as_dataclass
from nmt_async.study.setting import Setting
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
    """A study."""

    title: str
    question: str
    sizes: Mapping[str, Size]


def read_declaration(path: Path) -> Declaration:
    """The study in ``path``.

    Raises:
        UserError: it is not one; the sentence names the key.
    """
    values = load_yaml(path)
    unknown = set(values) - {"title", "question", "base", "conditions", "sizes"}
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
    )  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What a size says beside its budget."""

    validations: int
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _mapping(path: Path, what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path}: {what} must be a mapping of names.")
    return value


def _check_options(path: Path, condition: str, given: Mapping[str, Any]) -> None:
    for key in RESERVED:
        if key in given:
            raise UserError(f"{path}, {condition}: the study itself sets {key}; leave it out.")


def _size(path: Path, name: str, values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> Size:
    where = f"{path}, size {shown(name)}"
    try:
        budget = parse_quantity(str(values["budget"]), ("updates", "tokens", "epochs", "hours", "minutes"))
        asked = as_dataclass(_Asked, dict(values), others=True)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{where}: it needs budget, validations, seeds and conditions ({error}).") from None
    validations, seeds, chosen = asked.validations, asked.seeds, asked.conditions
    names = []
    for pattern in chosen:
        matching = [condition for condition in options if fnmatchcase(condition, pattern)]
        if not matching:
            raise UserError(f"{where}: no condition is called {shown(pattern)}.")
        names += [condition for condition in matching if condition not in names]
    given = _mapping(path, f"{where}, options", values.get("options", {}))
    _check_options(path, f"size {shown(name)}", given)
    own = {**given, **often(budget, validations)}
    settings = tuple(Setting(condition, seed, {**options[condition], **own}) for seed in seeds for condition in names)
    for condition in names:
        from_mapping(TrainOptions, {**options[condition], **own}, f"{path}, condition {shown(condition)}")
    return Size(name, settings, str(values.get("note", "")).strip())


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
