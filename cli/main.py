"""``nmt-async``: the list of its subcommands, and how their errors end."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperGroup

from nmt_async import __version__
from nmt_async.errors import RunFailure, UserError

from .declare import single

INTERRUPTED = 130
"""The exit code that shells give for SIGINT."""

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 a mistake in what was typed, 3 training diverged, 130 or 143 interrupted by "
    "Ctrl-C or SIGTERM."
)

COMMANDS = (
    "prepare", "doctor", "train", "watch", "replay", "translate", "evaluate", "score", "distil", "average", "quantize",
    "export", "import", "simulate", "report", "compare", "study", "bench",
)  # fmt: skip
"""In the order of the help; each is a module of its name (``import_``: Python takes the other), which needs no torch
until it is run."""


def module_of(name: str) -> ModuleType:
    """The module of a subcommand."""
    return import_module(f".{'import_' if name == 'import' else name}", __package__)


class _Subcommands(TyperGroup):
    """Imports a subcommand's module when its name is typed, or all of them for the list in ``--help``."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:  # of a mistyped one, Typer looks for the nearest
            if name not in self.commands:
                module = module_of(name)
                alone = module.group if hasattr(module, "group") else single(name, module)
                self.commands[name] = typer.main.get_command(alone)
                self.commands[name].name = name
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        examples = [module_of(name).EXAMPLE for name in ("prepare", "train", "translate", "evaluate")]
        self.epilog = "\n".join(["From text to scores:", *examples, "", EXIT_CODES])
        super().format_help(ctx, formatter)


app = typer.Typer(
    name="nmt-async",
    cls=_Subcommands,
    help="Trains Transformer translation models with synchronous, asynchronous and hybrid updates.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nmt-async {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line ``arguments`` (by default those typed), as `EXIT_CODES` says."""
    try:
        result = app(args=sys.argv[1:] or ["--help"] if arguments is None else arguments, standalone_mode=False)
    except typer.TyperException as error:
        return _say(error.format_message(), 2)
    except (UserError, RunFailure) as error:
        return _say(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except MemoryError:
        return _say("there is not enough memory for this.", 1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" while writing {error.filename}" if error.filename else ""
            return _say(f"the disk is full{where}; free some space and run the same command again.", 1)
        if error.filename:
            return _say(f"{error.filename}: {error.strerror}.", 1)
        raise
    if result == INTERRUPTED:  # Typer has made this of a KeyboardInterrupt
        return _say("interrupted.", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _say(message: str, code: int) -> int:
    print(f"nmt-async: {message}", file=sys.stderr)
    return code
