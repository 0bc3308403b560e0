"""``--tag``: a line that is translated or scored with it is the line that begins with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from nmt_async.cli.main import run
from small_model import save_small_model

from nmt_async import Scorer, Translator
from nmt_async.errors import UserError

LINES = ["the dog sees the cat", "never", "", "a bird in the garden", "\u200b"]
TAG = "__news__"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("tagged"), tags=[TAG, "__talks__"])


@pytest.fixture
def text(tmp_path: Path) -> dict[str, Path]:
    """Lines, the same with the tag before them, and what could be a translation of each."""
    tagged = [f"{TAG} {line}" if line in LINES[:2] + LINES[3:4] else line for line in LINES]
    files = {"plain": LINES, "tagged": tagged, "target": ["a dog", "never", "", "the small bird", ""]}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return {name: tmp_path / name for name in files}


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_it_translates_and_scores_the_line_with_the_tag_before_it(
    model: Path, text: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["translate", model, "--format", "jsonl", "-i"],
        ["translate", model, "--format", "jsonl", "--engine", "auto", "-i"],
        ["translate", model, "--workers", "2", "--devices", "cpu", "--format", "tsv", "-i"],
        ["score", model, "-t", text["target"], "--format", "tsv", "-s"],
        ["evaluate", model, "--reference", text["target"], "--bootstrap", "0", "--source"],
    ):
        with_option = said(capsys, *command, text["plain"], "--tag", TAG)
        assert with_option == said(capsys, *command, text["tagged"])
        assert command[0] == "evaluate" or with_option != said(capsys, *command, text["plain"])


def test_lines_without_words_stay_without_translation(model: Path) -> None:
    found = Translator(model, device="cpu").translate(LINES, tag=TAG)
    assert [translation.text for translation in found][2] == ""
    assert found[4].n_best[0].tokens == ()


def test_python_has_the_same(model: Path) -> None:
    translator, scorer = Translator(model, device="cpu"), Scorer(model, device="cpu")
    tagged = [f"{TAG} {line}" for line in LINES[:2]]
    assert translator.translate(LINES[:2], tag=TAG) == translator.translate(tagged)
    assert scorer.score(LINES[:2], LINES[:2], tag=TAG) == scorer.score(tagged, LINES[:2])
    with pytest.raises(UserError, match="--tag: '__law__' is no subword of"):
        translator.translate(LINES[:2], tag="__law__")


def test_the_way_back_reads_no_tag(
    model: Path, text: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_small_model(tmp_path)  # its vocabulary has none
    typed = ["score", model, "-t", text["target"], "--backward", other, "-s"]
    with_option = said(capsys, *typed, text["plain"], "--tag", TAG)
    assert with_option != said(capsys, *typed, text["plain"])


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("__law__", "--tag: '__law__' is no subword of"),
        ("two words", "--tag: 'two words' is not a word without spaces"),
        ("", "--tag: '' is not a word"),
    ],
)
@pytest.mark.parametrize("command", ["translate", "score", "evaluate"])
def test_a_tag_that_the_model_has_not_is_one_sentence_and_writes_nothing(
    command: str, tag: str, message: str, model: Path, text: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = {
        "translate": ["-i", text["plain"], "-o", tmp_path / "out"],
        "score": ["-s", text["plain"], "-t", text["target"], "-o", tmp_path / "out"],
        "evaluate": ["--source", text["plain"], "--reference", text["target"]],
    }[command]
    assert run([command, str(model), *map(str, words), "--tag", tag]) == 2
    answered = capsys.readouterr()
    assert message in answered.err
    assert answered.out == ""
    assert answered.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
