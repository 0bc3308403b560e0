"""What ``--help`` shows a new user, and the names by which options go."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from nmt_async.cli import average, distil, evaluate, prepare, quantize, score, train, translate, watch
from nmt_async.cli.main import run

from nmt_async.errors import Diverged, RunFailure, UserError
from nmt_async.training.interruptions import Interrupted

COMMANDS = {
    "prepare": prepare, "train": train, "watch": watch, "translate": translate, "evaluate": evaluate, "score": score,
    "distil": distil, "average": average, "quantize": quantize,
}  # fmt: skip


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert run([*command, "--help"]) == 0
    return capsys.readouterr().out


def groups(text: str) -> list[str]:
    return re.findall(r"^╭─ (.*?) ─+╮$", text, flags=re.MULTILINE)


def test_commands_come_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    listed = re.findall(r"^│ ([a-z]+) ", help_of(capsys), flags=re.MULTILINE)
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)


def test_the_help_and_the_document_list_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(help_of(capsys).split()).partition("Exit codes: ")[2]
    document = (Path(__file__).parents[2] / "docs/training.md").read_text().partition("## Exit codes")[2]
    rows = ", ".join(re.findall(r"^\| ([0-9, ]+) \|", document, flags=re.MULTILINE))
    ends = {UserError.exit_code, RunFailure.exit_code, Diverged.exit_code}
    ends |= {Interrupted("", number).exit_code for number in (signal.SIGINT, signal.SIGTERM)}
    for text in (said, rows):
        assert set(map(int, re.findall(r"[0-9]+", text))) == {0, *ends}


def test_options_of_train_come_by_theme(capsys: pytest.CaptureFixture[str]) -> None:
    assert groups(help_of(capsys, "train")) == [
        "Arguments", "Options", "Run", "Updates", "Devices", "Machines", "Model", "Optimizer", "Batches",
        "Validation and stopping", "Reports and checkpoints", "Who waits", "What crosses", "Staleness",
        "Optimizer constants", "Quantisation", "Configuration",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["train", "watch", "translate", "evaluate", "score", "distil", "average", "quantize"])
def test_every_group_has_its_place(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    listed = [group for group in groups(help_of(capsys, name)) if group not in ("Arguments", "Options")]
    assert listed == [*COMMANDS[name].GROUPS, "Configuration"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_with_an_example_of_options_it_has(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, name)
    example = COMMANDS[name].EXAMPLE
    assert example.startswith(f"nmt-async {name} ")
    assert " ".join(text.split()).endswith(f"Example: {example}")
    assert all(f"│ {option} " in text for option in re.findall(r"--[a-z-]+", example))


def test_marians_names_are_understood_and_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--optimizer-delay" in help_of(capsys, "train")
    assert run(["train", "data", "--optimizer-delay", "3", "--after", "2e", "--dump-config"]) == 0
    said = capsys.readouterr().out
    assert "accumulate: 3\n" in said
    assert "stop-after: 2e\n" in said


def test_what_stands_in_brackets_is_shown_and_a_default_is_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nmt-async[tensorboard]" in "".join(re.sub(r"[│\s]", "", help_of(capsys, "train")))
    assert "('" not in help_of(capsys, "bench")
