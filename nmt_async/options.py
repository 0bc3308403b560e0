"""One declaration of an option: a dataclass field that carries its help, its group and its flag.

The command line (``cli/declare.py``), the configuration file (``load_yaml``/``dump_yaml``) and the code all
read the same frozen dataclass, so an option is written down once.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from nmt_async.errors import UserError, shown

T = TypeVar("T")


class _Presence(enum.Enum):
    GIVEN = "another value than the default"
    NOT_GIVEN = "the default"


GIVEN, NOT_GIVEN = _Presence.GIVEN, _Presence.NOT_GIVEN


class Automatic(int):
    """A number that is found; written as it is typed."""

    def __str__(self) -> str:
        return "auto"

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class OtherThan:
    """Any value but this one."""

    value: Any


Situation = Mapping[str, Any]
"""Fields by name, and what they must be; what a command has no option for does not matter in it."""


def option(
    default: Any,
    help: str,
    *,
    group: str,
    flags: Sequence[str] = (),
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    parse: Callable[[str], Any] | None = None,
    changeable: bool = False,
    only_with: Situation | Sequence[Situation] = (),
    neutral: Sequence[Any] = (),
    excludes: Sequence[str] = (),
    hint: str = "",
) -> Any:
    """A dataclass field that is also a command-line option and a key of the configuration file.

    Args:
        default: the value when nobody gives one.
        help: one sentence for ``--help``.
        group: the theme under which ``--help`` lists it.
        flags: names on the command line; by default ``--`` and the field's name with dashes.
        choices: the allowed words, for options that are one of a few words.
        parse: turns the typed text into the value, for types beyond str, int, float, bool and Path;
            its value's ``str()`` must give text that it parses again.
        changeable: a run may be resumed with another value of it.
        only_with: the situation, or situations, in which the option means something: what each of the other fields
            named must be, a value, a tuple of values, `OtherThan` a value, `GIVEN` or `NOT_GIVEN`. Elsewhere
            `check_together` refuses it.
        neutral: values that ask for nothing, which may be given in any situation.
        excludes: other fields that mean nothing where this one is given.
        hint: what else may have been meant, for the sentence that refuses it.
    """
    situations = (only_with,) if isinstance(only_with, Mapping) else tuple(only_with)
    metadata = {
        "help": help, "group": group, "flags": tuple(flags), "metavar": metavar,
        "choices": tuple(choices) if choices else None, "parse": parse, "changeable": changeable,
        "only_with": situations, "neutral": tuple(neutral), "excludes": tuple(excludes), "hint": hint,
    }  # fmt: skip
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The option's first name as typed, for error messages: ``--sync-mode``."""
    flags: tuple[str, ...] = field.metadata.get("flags", ())
    return (flags[0] if flags else "--" + field.name.replace("_", "-")).split("/")[0]


def key_of(field: dataclasses.Field[Any]) -> str:
    """The option's key in a configuration file: ``sync-mode``."""
    return field.name.replace("_", "-")


def flags_of(declaration: type) -> dict[str, str]:
    """The flag of each option of a declaration, by its key."""
    return {key_of(field): flag_of(field) for field in dataclasses.fields(declaration)}


def value_type(field_type: Any) -> tuple[Any, bool]:
    """``(int, True)`` for ``int | None``, ``(int, False)`` for ``int``."""
    if get_origin(field_type) in (types.UnionType, typing.Union):
        inner = [argument for argument in get_args(field_type) if argument is not type(None)]
        return inner[0], True
    return field_type, False


def convert(field: dataclasses.Field[Any], field_type: Any, value: Any) -> Any:
    """``value`` (typed text or a YAML scalar) as the field's type.

    Raises:
        UserError: it cannot be read as that type, or is not among the choices.
    """
    inner, optional = value_type(field_type)
    if value is None:
        if optional:
            return None
        raise UserError(f"{flag_of(field)} needs a value.")
    parse = field.metadata.get("parse")
    choices = field.metadata.get("choices")
    if get_origin(inner) in (list, tuple):
        items = list(value) if isinstance(value, list | tuple) else [value]
        item_type = get_args(inner)[0]
        converted = [_scalar(field, item_type, item, parse, choices) for item in items]
        return tuple(converted) if get_origin(inner) is tuple else converted
    return _scalar(field, inner, value, parse, choices)


NOUNS = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
LARGEST_WHOLE = 2**63 - 1
"""Of an option."""
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes, on Linux; a path has room for the name of a file in the folder that it is."""


def _scalar(field: Any, kind: Any, value: Any, parse: Any, choices: Any) -> Any:
    name = flag_of(field)
    if parse is not None:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UserError(f"{name}: {shown(value)} cannot be used.")
        try:
            return parse(str(value))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        except ValueError as error:
            raise UserError(f"{name}: {shown(value)} cannot be used: {error}.") from None
    if choices is not None and str(value) not in choices:
        raise UserError(f"{name}: {shown(value)} is not known; choose one of {', '.join(choices)}.")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise UserError(f"{name}: {shown(value)} is neither true nor false.")
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
            raise TypeError
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        converted = kind(value)
        if isinstance(converted, int) and abs(converted) > LARGEST_WHOLE:
            raise OverflowError
        if isinstance(converted, str | os.PathLike) and b"\0" in os.fsencode(converted):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{name}: {shown(value)} is not {NOUNS.get(kind, kind.__name__)}.") from None
    if isinstance(converted, Path) and not _fits(converted):
        raise UserError(f"{name}: {shown(value)} is too long for a path; choose a shorter one.")
    return converted


def _fits(path: Path) -> bool:
    names = [len(os.fsencode(name)) for name in path.parts]
    return max(names, default=0) <= LONGEST_NAME and sum(names) + len(names) <= LONGEST_PATH - LONGEST_NAME


def is_given(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether it has another value than the default. Who typed it is not asked: a dumped file names all options."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(value != default)


def meaningless(options: Any) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """Each option that was given and means nothing beside the others (its ``only_with``), with a sentence about it."""
    for field in dataclasses.fields(options):
        obstacles, value = _obstacles(options, field), getattr(options, field.name)
        if obstacles and is_given(field, value) and value not in field.metadata.get("neutral", ()):
            reasons, remedies = (list(filter(None, dict.fromkeys(each))) for each in zip(*obstacles, strict=True))
            advice = ", or give ".join([field.metadata["hint"] or "leave it out", *remedies])
            named = _as_typed(field, value, with_value=False)
            yield field, f"{named} means nothing {' and '.join(reasons)}; {advice}."


def matters(options: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether the option means something beside the others, whatever its value is."""
    return not _obstacles(options, field)


def holds(options: Any, situation: Situation) -> bool:
    """Whether the options are in the situation."""
    return _obstacle(options, situation) is None


def _obstacles(options: Any, field: dataclasses.Field[Any]) -> list[tuple[str, str]]:
    """What keeps the options out of each situation in which ``field`` means something; empty if they are in one."""
    fields = dataclasses.fields(options)
    excluding = {each.name: NOT_GIVEN for each in fields if field.name in each.metadata.get("excludes", ())}
    situations: tuple[Situation, ...] = field.metadata.get("only_with", ()) or ({},)
    found = [_obstacle(options, {**excluding, **situation}) for situation in situations]
    return [] if None in found else list(filter(None, found))


def _obstacle(options: Any, situation: Situation) -> tuple[str, str] | None:
    """What keeps the options from being in the situation, and what would mend it; None if they are in it."""
    fields = {field.name: field for field in dataclasses.fields(options)}
    for name, wanted in situation.items():
        if name not in fields:  # of another command
            continue
        field, value = fields[name], getattr(options, name)
        if isinstance(wanted, _Presence):
            if wanted is GIVEN and not is_given(field, value):
                return f"without {flag_of(field)}", ""
            if wanted is NOT_GIVEN and is_given(field, value):
                return f"with {_as_typed(field, value, with_value=False)}", ""
        elif isinstance(wanted, OtherThan):
            if value == wanted.value:
                return f"with {_as_typed(field, value)}", ""
        else:
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            if value not in allowed:
                named = " or ".join(str(each) for each in allowed if each is not None)
                needed = "" if isinstance(value, bool) else f"{flag_of(field)} {named}"
                return f"without {flag_of(field)}" if value is None else f"with {_as_typed(field, value)}", needed
    return None


def _as_typed(field: dataclasses.Field[Any], value: Any, with_value: bool = True) -> str:
    """``--metric bleu``, ``--json``, ``--no-trial``."""
    flag = flag_of(field)
    if value is False:
        return f"--no-{key_of(field)}"
    return f"{flag} {value}" if with_value and value is not True else flag


def check_together(options: Any) -> None:
    """Refuses what was given and would be ignored.

    Raises:
        UserError: an option means nothing beside the others.
    """
    for _, sentence in meaningless(options):
        raise UserError(sentence)


def without_meaningless(options: T) -> T:
    """The same options, with the default in the place of what means nothing beside the others."""
    ignored: Any = options
    return dataclasses.replace(ignored, **{field.name: field.default for field, _ in meaningless(ignored)})  # type: ignore[no-any-return]


def converted(declaration: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a configuration file by the names of their fields, each checked by itself.

    What options must fulfil together is not checked: others may be typed beside the file.

    Raises:
        UserError: a key that no option has, or a value that cannot be used; ``where`` names the file.
    """
    hints = typing.get_type_hints(declaration)
    fields = {key_of(field): field for field in dataclasses.fields(declaration)}
    found: dict[str, Any] = {}
    for key, value in values.items():
        field = fields.get(key.replace("_", "-"))
        if field is None:
            raise UserError(f"{where}: no option is called {shown(key)}; see --dump-config for those there are.")
        if field.name in found:
            raise UserError(f"{where}: {key_of(field)} is given twice; leave one out.")
        try:
            found[field.name] = convert(field, hints[field.name], value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return found


def from_mapping(declaration: type[T], values: Mapping[str, Any], where: str) -> T:
    """The options from keys as in a configuration file; what is absent keeps its default.

    Raises:
        UserError: a key that no option has, a value that cannot be used, or options that do not go together; ``where``
            names the file.
    """
    arguments = converted(declaration, values, where)
    try:
        options = declaration(**arguments)
        check_together(options)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return options


def to_mapping(options: Any) -> dict[str, Any]:
    """All options by their keys, as plain values that YAML and JSON can hold."""
    return {key_of(field): _plain(getattr(options, field.name)) for field in dataclasses.fields(options)}


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, bool | int | float) and not isinstance(value, Automatic)):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


MOST_BYTES = 4 * 2**20
"""Of a YAML file: nobody types as much, and it takes a minute to read."""
MOST_VALUES = 1_000_000
"""In a YAML file, those behind an alias (``*name``) counted each time."""
MOST_BITS = 4096
"""Of a whole number; Python cannot print any length."""


class _Twice(yaml.YAMLError):
    """A mapping has a key twice. PyYAML would take the last one without a word."""

    def __init__(self, key: str, first: int, second: int) -> None:
        where = f"twice in line {first}" if first == second else f"in line {first} and again in line {second}"
        super().__init__(f"{shown(key)} stands {where}; leave one out")


class _Loader(yaml.SafeLoader):
    """Makes no objects, and no more of a file than it holds: a few aliases of aliases stand for billions of values."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, Any], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise _Twice(key.value, lines[key.tag, key.value], line)
                lines[key.tag, key.value] = line
        return node

    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        if node is not None and _values_of(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"it stands for more than {MOST_VALUES:,} values")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if value.bit_length() > MOST_BITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} has a number of thousands of digits")
        return value

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        value: str = super().construct_yaml_str(node)
        value.encode()  # it can name half a character, which no file can hold
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)


def _values_of(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values the node stands for; one that holds itself, without end."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_values_of(part, known) for part in inner)
    return known[id(node)]


def load_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a mapping of option keys to values.

    Raises:
        UserError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({problem}).") from None
    return yaml_mapping(content, str(path))


def yaml_mapping(content: bytes, where: str) -> dict[str, Any]:
    """The mapping that a YAML text is.

    Raises:
        UserError: it is not YAML, or not a mapping; ``where`` names it.
    """
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        loaded = yaml.load(content.decode(), _Loader)
    except RecursionError:
        raise UserError(f"{where} is not YAML (it is nested too deeply).") from None
    except _Twice as error:
        raise UserError(f"{where}: {error}.") from None
    # A date that does not exist is a ValueError; an empty !!int an IndexError, and more of the kind.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{where} is not YAML ({line if len(line) < 500 else type(error).__name__}).") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"{where} must hold one option a line, as in 'sync-mode: hybrid'.")
    return loaded


def dump_yaml(options: Any) -> str:
    """The configuration file that gives just these options."""
    text: str = yaml.safe_dump(to_mapping(options), sort_keys=False, allow_unicode=True)
    return text
