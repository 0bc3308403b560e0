"""``nmt-async evaluate`` as a user types it."""

from __future__ import annotations

import json

import pytest
import sacrebleu
from nmt_async.cli.main import run
from small_model import save_small_model

REFERENCE = ["the dog sees the red cat", "a bird runs in the garden", "never in the big house"] * 4
HYPOTHESIS = ["the dog sees the big cat", "a bird runs in a garden", "never in the house"] * 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    for name, lines in {"reference": REFERENCE, "hypothesis": HYPOTHESIS, "short": HYPOTHESIS[1:], "empty": []}.items():
        (folder / name).write_text("".join(line + "\n" for line in lines))
    return {"folder": str(folder), "model": str(save_small_model(folder))}


def evaluate(files, capsys, *arguments):
    """Exit code, standard output and standard error of evaluate; ``{folder}`` and ``{model}`` are filled in."""
    code = run(["evaluate", *(argument.format(**files) for argument in arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_three_scores_are_printed_with_intervals_and_signatures(files, capsys):
    code, out, err = evaluate(files, capsys, "--reference", "{folder}/reference", "--hypothesis", "{folder}/hypothesis")
    bleu = sacrebleu.corpus_bleu(HYPOTHESIS, [REFERENCE]).score
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["BLEU", "chrF", "TER"]
    assert lines[0].startswith(f"BLEU  {bleu:.2f}  95 %: ")
    assert all("±" in line and "|bs:1000|seed:12345|" in line and "|version:" in line for line in lines)


def test_json_holds_the_same_numbers(files, capsys):
    arguments = ["--reference", "{folder}/reference", "--hypothesis", "{folder}/hypothesis", "--bootstrap", "0"]
    scores = json.loads(evaluate(files, capsys, *arguments, "--json")[1])
    assert scores["BLEU"]["score"] == sacrebleu.corpus_bleu(HYPOTHESIS, [REFERENCE]).score
    assert scores["TER"]["mean"] is None


def test_a_model_is_scored_by_what_translate_prints(files, capsys, tmp_path):
    decoding = ["--beam-size", "3", "--threads", "1"]
    source = files["folder"] + "/reference"
    assert run(["translate", files["model"], "-i", source, "-o", str(tmp_path / "out"), *decoding]) == 0
    of_file = evaluate(files, capsys, "-r", source, "--hypothesis", str(tmp_path / "out"))
    of_model = evaluate(files, capsys, "{model}", "-r", source, "--source", source, *decoding)
    assert of_file[:2] == of_model[:2]
    assert of_file[0] == 0


def test_several_models_are_scored_as_one(files, capsys):
    source = files["folder"] + "/reference"
    typed = ["-r", source, "--source", source, "--beam-size", "2", "--threads", "1"]
    alone, together = (evaluate(files, capsys, *models, *typed) for models in (["{model}"], ["{model}", "{model}"]))
    assert alone[0] == 0
    assert together == alone
    code, _, err = evaluate(files, capsys, "{model}", "{model}", *typed, "--weights", "1")
    assert (code, "--weights: 1 weight for 2 models" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --reference"),
        (["-r", "{folder}/reference"], "neither was given"),
        (["{model}", "-r", "{folder}/reference", "--hypothesis", "{folder}/hypothesis"], "both were given"),
        (["{model}", "-r", "{folder}/reference"], "give --source"),
        (["-r", "{folder}/reference", "--hypothesis", "{folder}/short", "--source", "{folder}/short"], "--source"),
        (["-r", "{folder}/absent", "--hypothesis", "{folder}/hypothesis"], "--reference: there is no file"),
        (["-r", "{folder}/reference", "--hypothesis", "{folder}/absent"], "--hypothesis: there is no file"),
        (["-r", "{folder}/reference", "--hypothesis", "{folder}/short"], "short has 11 lines but"),
        (["{model}", "-r", "{folder}/reference", "--source", "{folder}/short"], "short has 11 lines but"),
        (["-r", "{folder}/empty", "--hypothesis", "{folder}/empty"], "no lines"),
        (["-r", "{folder}/reference", "--hypothesis", "{folder}/hypothesis", "--beam-size", "3"], "--beam-size"),
        (["-r", "{folder}/reference", "--hypothesis", "{folder}/hypothesis", "--bootstrap", "7"], "--bootstrap"),
        (["{folder}", "-r", "{folder}/reference", "--source", "{folder}/reference"], "holds no model"),
        (["{model}", "-r", "{folder}/reference", "--source", "{folder}/reference", "-b", "1", "-n", "1"],
         "--normalize means nothing with --beam-size 1; leave it out."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(files, capsys, arguments, message):
    code, out, err = evaluate(files, capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
