"""What the documents say to type is understood: commands, options and their values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from documents import DOCUMENTS, code_lines, code_spans, read, words_of
from nmt_async.cli.main import app
from nmt_async.cli.main import run as nmt_async

PROGRAM = typer.main.get_command(app)
MARIANS = {"--cost-type", "--dim-vocabs"}
"""Options that the documents name and that Marian alone has."""


def subcommands(command: Any = PROGRAM, name: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by what one types for it."""
    if hasattr(command, "list_commands"):
        for word in command.list_commands(None):
            yield from subcommands(command.get_command(None, word), (*name, word))
    else:
        yield " ".join(name), command


def options(command: Any) -> set[str]:
    """All names by which the command's options go."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help", "-h"}


OPTIONS = {name: options(command) for name, command in subcommands()}
ALL_OPTIONS = set().union(*OPTIONS.values(), options(PROGRAM))


def lines_to_type() -> list[tuple[Path, str]]:
    """Every line of a block of code that calls the program, with its document."""
    return [(document, line) for document in DOCUMENTS for line in code_lines(read(document)) if words_of(line)]


def test_the_documents_have_lines_to_type() -> None:
    assert {str(document) for document, _ in lines_to_type()} >= {"README.md", "docs/tutorial.md"}
    assert len(lines_to_type()) > 20


@pytest.mark.parametrize(("document", "line"), lines_to_type())
def test_a_line_to_type_is_understood(document: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(line)[1:]
    code = nmt_async(words if {"--help", "--version"} & set(words) else [*words, "--dump-config"])
    assert code == 0, f"{document}: {line}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_command_within_a_sentence_has_only_options_that_exist(document: Path) -> None:
    for span in code_spans(read(document)):
        words = [word.strip("[]") for word in words_of(span)[1:]]
        if not words or words[0].startswith("-") or words[0] == "COMMAND":
            continue
        name = next((name for name in (" ".join(words[:2]), words[0], f"{words[0]} training") if name in OPTIONS), None)
        assert name is not None, f"{document}: {span}"
        typed = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert typed <= OPTIONS[name], f"{document}: {span}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_an_option_that_is_named_exists(document: Path) -> None:
    text = read(document)
    if document.name == "from-marian.md":  # the first column is what one types in Marian
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    named = {name for span in code_spans(text) for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", span)}
    assert named - ALL_OPTIONS - MARIANS == set()


def test_the_index_names_every_command() -> None:
    table = read("docs/README.md").partition("## All commands")[2].partition("\n## ")[0]
    first = re.findall(r"^\| (`[^|]+) \|", table, flags=re.MULTILINE)
    named = {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}
    assert named == {"bench" if name == "bench training" else name for name in OPTIONS}
