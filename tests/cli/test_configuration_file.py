"""``--config``: a file gives some options, the command line others, and only both together must fit."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml
from nmt_async.cli.main import run

USES = {
    "prepare": "--train-source a --train-target b --vocab-size 400 --max-length-ratio 3 --out data",
    "train": "--cluster simulated --profile uneven --workers 4 --lr-decay linear --stop-after 2Mt --metric bleu",
    "doctor": "--sync-mode sync --accumulate 2 --lr-decay cosine --lr-decay-end 3e --json",
    "translate": "--output-sampling full --seed 5 --min-target-length 8 --max-target-length 9 --n-best",
    "evaluate": "--reference r --source s --max-length-factor 5 --min-length-factor 4 --json",
    "score": "--source s --target t --backward run --threshold 0.5 --kept-source a --kept-target b",
    "average": "--best 2 --metric bleu --out averaged",
    "export": "--format ctranslate2 --quantization int8 --verify text --verify-share 0.5",
    "import": "--out run",
    "simulate": "--data data --max-length 9 --workers 1,2 --modes sync",
    "report": "--out there",
    "compare": "--budget 2Mt --seeds 1 --intervals sentences --cluster simulated --profile paper --lr-warmup 10",
    "study": "--size core --claims claims.yaml --jobs 2",
    "bench training": "--check --batches 3 --devices cpu --seed 4",
    "bench decode": "--input text --length 7 --rounds 2",
    "bench prepare": "--pairs 9 --temporary . --json",
    "watch": "--once",
    "replay": "--until 7 --data moved",
}
"""A use of each command whose options need each other, where some do."""


def pairs(typed: str) -> list[list[str]]:
    """Each option with its value, if it takes one."""
    found: list[list[str]] = []
    for word in typed.split():
        if word.startswith("--"):
            found.append([])
        found[-1].append(word)
    return found


def dumped(capsys: pytest.CaptureFixture[str], command: str, words: list[str]) -> str:
    arguments = {"prepare": 0, "bench prepare": 0, "simulate": 0, "export": 2, "study": 2}.get(command, 1)
    code = run([*command.split(), *["some"] * arguments, *words, "--dump-config"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


@pytest.mark.parametrize("command", USES)
def test_an_option_may_stand_in_the_file_or_be_typed(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = pairs(USES[command])
    typed = dumped(capsys, command, list(chain(*options)))
    whole = yaml.safe_load(typed)
    file = tmp_path / "part.yaml"
    for number, option in enumerate(options):
        others = options[:number] + options[number + 1 :]
        for written, words in (([option], others), (others, [option])):
            keys = [each[0].removeprefix("--") for each in written]
            file.write_text(yaml.safe_dump({key: whole[key] for key in keys}))
            assert dumped(capsys, command, ["--config", str(file), *chain(*words)]) == typed


def test_what_is_typed_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cluster: processes\nseed: 7\nlr-decay: linear\n")
    words = ["--config", str(file), "--cluster", "simulated", "--profile", "paper", "--lr-decay", "none"]
    options = yaml.safe_load(dumped(capsys, "train", words))
    assert (options["cluster"], options["seed"], options["lr-decay"]) == ("simulated", 7, "none")


@pytest.mark.parametrize(
    ("command", "text", "words", "sentence"),
    [
        ("train", "lr-decay: linear", "", r"--lr-decay linear needs --lr-decay-end, .* \(FILE sets lr-decay\)\."),
        ("compare", "preset: tiny", "", r"--budget is missing; .* \(FILE was read, too\)\."),
        ("train", "mini-batch-words: 0\nseed: 3", "", r"--mini-batch-words: 0 is .* \(FILE sets mini-batch-words\)\."),
        ("train", "mini-batch-words: many", "--mini-batch-words 9", r"FILE: --mini-batch-words: 'many' is not a .*"),
        ("train", "metrc: bleu", "", r"FILE: no option is called 'metrc'; .*"),
        ("train", "keep-last: 2\nkeep_last: 3", "", r"FILE: keep-last is given twice; leave one out\."),
        ("train", "seed: 1\npreset: tiny\nseed: 2", "", r"FILE: 'seed' stands in line 1 and again in line 3; .*"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_names_it(
    command: str, text: str, words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    assert run([command, "data", "--config", "c.yaml", *words.split()]) == 2
    said = capsys.readouterr().err
    pattern = f"nmt-async: {sentence}".replace("FILE", r"c\.yaml")
    assert re.fullmatch(pattern, said.strip()), said
