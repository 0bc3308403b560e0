"""What is installed: every package, no foreign import name, and a help text for every option."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import typer.main
from nmt_async.cli.main import app

import nmt_async

ROOT = Path(__file__).parents[1]


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The command and its subcommands, with what one types to call them."""
    yield name, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for word in command.list_commands(context):
            yield from commands(command.get_command(context, word), f"{name} {word}")


def test_every_package_folder_is_listed_in_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    folders = {path.parent for path in (ROOT / "nmt_async").rglob("*.py")}
    there = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert listed == there | {"nmt_async.cli"}
    for folder in folders:
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_installed_package_claims_no_import_name_but_its_own(tmp_path: Path) -> None:
    found = "import importlib.util as u; print(u.find_spec('cli'), u.find_spec('nmt_async.cli').name)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", found], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["None", "nmt_async.cli"]


def test_version_is_written_alike_in_metadata_and_package() -> None:
    assert version("nmt-async") == nmt_async.__version__


def test_constraints_pin_every_dependency() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    needed = {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in requires("nmt-async") or []}
    assert needed - pinned == set()


def test_every_option_and_command_has_help_text() -> None:
    for name, command in commands(typer.main.get_command(app), "nmt-async"):
        assert command.help, f"{name} has no help text"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts[0]} has no help text"


def test_every_file_of_cli_that_declares_a_command_is_reachable() -> None:
    named = {name for name, _ in commands(typer.main.get_command(app), "nmt-async")}
    listed = {part for name in named for part in (name.split()[-1], "-".join(name.split()[1:]))}
    files = {path.stem.removesuffix("_").replace("_", "-") for path in (ROOT / "cli").glob("*.py")}
    assert files - {"--init-", "declare", "main", "start"} <= listed
