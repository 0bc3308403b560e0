"""Builds a Typer command from an options dataclass, so that an option is declared once (``nmt_async.options``)."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from rich.markup import escape

from nmt_async.allocation import keep_freed_memory
from nmt_async.errors import UserError
from nmt_async.options import (
    check_together,
    convert,
    converted,
    dump_yaml,
    flag_of,
    key_of,
    load_yaml,
    option,
    value_type,
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CommonOptions:
    """What every command that takes options understands beside its own."""

    config: Path | None = option(
        None,
        "Read options from this YAML file; options typed on the command line win.",
        group="Configuration",
        metavar="FILE",
    )
    dump_config: bool = option(
        False, "Print all options as a file for --config, and stop.",
        group="Configuration", flags=("--dump-config",),
    )  # fmt: skip
    quiet: bool = option(False, "Print results and problems only.", group="Configuration", flags=("--quiet", "-q"))


def _names(field: dataclasses.Field[Any]) -> tuple[list[str], list[str]]:
    """The option's own names, and the others (Marian's) by which it also goes.

    Help lists the own ones only: with all of them in one column, little room is left to say what they mean.
    """
    flags = field.metadata["flags"] or ("--" + key_of(field),)
    long = [flag for flag in flags if flag.startswith("--")]
    return [flag for flag in flags if flag not in long[1:]], long[1:]


def _help(field: dataclasses.Field[Any]) -> str:
    help_text: str = field.metadata["help"]
    others = _names(field)[1]
    if others:
        help_text += f" Also {', '.join(others)}."
    if field.default not in (None, False, (), dataclasses.MISSING):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        help_text += f" (default: {'yes' if default is True else default})"
    return escape(help_text)  # what stands in brackets, such as an extra's name, is no markup


def _parameters(field: dataclasses.Field[Any], hint: Any) -> list[inspect.Parameter]:
    """One dataclass field as a Typer option, and a hidden one for its other names; see `_typed` for the values."""
    inner, _ = value_type(hint)
    flags, others = _names(field)
    typed: Any = str
    if inner is bool:
        typed = bool
        if not field.metadata["flags"]:
            flags = [f"--{key_of(field)}/--no-{key_of(field)}"]
    elif get_origin(inner) is tuple and ... not in get_args(inner):
        typed = tuple[(str,) * len(get_args(inner))]  # type: ignore[misc]
    elif get_origin(inner) in (list, tuple):
        typed = list[str]
    metavar = field.metadata["metavar"]
    if metavar is None and typed is not bool:
        choices = field.metadata["choices"]
        kind = get_args(inner)[0] if typed is not str else inner
        metavar = "|".join(choices) if choices else getattr(kind, "__name__", "TEXT").upper()
    if typed is bool:
        metavar = ""  # Typer would say <bool>, as if it took a value
    shown = typer.Option(
        *flags, help=_help(field), metavar=metavar, rich_help_panel=field.metadata["group"], show_default=False
    )
    declared = [(field.name, shown)]
    if others:
        declared.append(
            (field.name + OTHER, typer.Option(*others, help=f"The same as {flags[0]}.", metavar=metavar, hidden=True))
        )
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[typed | None, how])
        for name, how in declared
    ]


OTHER = "_by_another_name"


def _typed(values: Mapping[str, Any], field: dataclasses.Field[Any]) -> Any:
    """What was typed for the field, as text that `convert` reads; None if nothing was."""
    for name in (field.name, field.name + OTHER):
        if values.get(name) not in (None, []):
            return values[name]
    return None


def as_typed() -> str:
    """The command line of this process, as one types it."""
    return shlex.join(["nmt-async", *sys.argv[1:]])


def _by_group(fields: Sequence[dataclasses.Field[Any]], groups: Sequence[str]) -> list[dataclasses.Field[Any]]:
    """The fields in the order in which ``groups`` names their groups; groups not named come behind."""
    place = {group: number for number, group in enumerate(groups)}
    return sorted(fields, key=lambda field: place.get(field.metadata["group"], len(place)))


def single(name: str, module: ModuleType) -> typer.Typer:
    """An application of one command, that of a module of this folder; see `command`."""
    app = typer.Typer(add_completion=False)
    command(app, name, module)
    return app


def command(app: typer.Typer, name: str, module: ModuleType) -> None:
    """Adds the subcommand ``name`` of a module of this folder.

    The module has
        OPTIONS: the dataclass of its options.
        run: called as ``run(options, common, **arguments)``. What it needs torch for, it imports itself.
        EXAMPLE: the shortest real use, shown below the help.
        GROUPS: of options, in the order in which the help lists them; those not named follow in their own order.
        ARGUMENTS: positional ones, name to its ``Annotated[..., typer.Argument(...)]``; they are required unless their
            annotation allows None.
    """
    declaration, run = module.OPTIONS, module.run
    arguments, groups = getattr(module, "ARGUMENTS", {}), getattr(module, "GROUPS", ())
    parameters = []
    for key, annotation in arguments.items():
        optional = value_type(get_args(annotation)[0])[1]
        default = None if optional else inspect.Parameter.empty
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(key, kind, default=default, annotation=annotation))
    for source in (declaration, CommonOptions):
        hints = typing.get_type_hints(source)
        for field in _by_group(dataclasses.fields(source), groups):
            parameters += _parameters(field, hints[field.name])

    def body(**typed: Any) -> None:
        given = {key: typed.pop(key) for key in list(arguments)}
        common = CommonOptions(**_values(CommonOptions, typed))
        options = _collect(declaration, typed, common.config)
        if common.dump_config:
            typer.echo(dump_yaml(options), nl=False)
        else:
            keep_freed_memory()
            run(options, common, **given)

    body.__name__ = name.replace("-", "_")
    body.__doc__ = run.__doc__
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name=name, no_args_is_help=False, epilog=f"Example: {module.EXAMPLE}")(body)


def _values(declaration: type, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed of a declaration's options, by the names of their fields."""
    hints = typing.get_type_hints(declaration)
    found = {field: _typed(typed, field) for field in dataclasses.fields(declaration)}
    return {field.name: convert(field, hints[field.name], value) for field, value in found.items() if value is not None}


def _collect(declaration: type[T], typed: Mapping[str, Any], config: Path | None) -> T:
    """What was typed, over what the configuration file says, over the defaults.

    Raises:
        UserError: a key or a value of the file cannot be used by itself, or the options, both together, do not fit.
    """
    written = converted(declaration, load_yaml(config), str(config)) if config else {}
    values = _values(declaration, typed)
    try:
        options = declaration(**{**written, **values})
        check_together(options)
        return options
    except UserError as error:
        if not config:
            raise
        named = [
            key_of(field)
            for field in dataclasses.fields(declaration)  # type: ignore[arg-type]
            if field.name in written.keys() - values.keys() and re.search(rf"{flag_of(field)}(?![\w-])", str(error))
        ]
        told = f"sets {' and '.join(named)}" if named else "was read, too"
        raise UserError(f"{str(error).removesuffix('.')} ({config} {told}).") from None
