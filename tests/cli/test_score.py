"""``nmt-async score`` as a user types it."""

from __future__ import annotations

import json
import math

import pytest
from nmt_async.cli.main import run
from small_model import save_small_model

SOURCES = "the dog sees the cat\nnever\n\na bird in the garden\n"
TARGETS = "a dog\n\n\nthe small bird runs\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_small_model(tmp_path_factory.mktemp("score")))


@pytest.fixture
def score(model, tmp_path, capsys):
    """The lines that score prints for two texts."""
    (tmp_path / "source").write_text(SOURCES)

    def typed(*options, target=TARGETS, code=0):
        (tmp_path / "target").write_text(target)
        files = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
        assert run(["score", model, *files, "--threads", "1", *options]) == code
        said = capsys.readouterr()
        return said.out.splitlines() if code == 0 else said.err

    return typed


def test_every_pair_gets_a_line(score):
    lines = score()
    assert len(lines) == 4
    assert [float(line) < 0 for line in lines] == [True, True, False, True]
    assert float(lines[2]) == 0.0


def test_forms_say_the_same(score):
    sums = [float(line) for line in score()]
    normalised = [float(line) for line in score("--normalize", "1")]
    for line, total in zip(score("--word-scores"), sums, strict=True):
        printed, words = line.split(" ||| WordScores=")
        assert float(printed) == total == pytest.approx(sum(map(float, words.split())), abs=1e-3)
    table = [line.split("\t") for line in score("--format", "tsv", "-n", "1", "--word-scores")]
    objects = [json.loads(line) for line in score("--format", "jsonl", "-n", "1", "--word-scores")]
    for number, (row, values) in enumerate(zip(table, objects, strict=True), 1):
        assert int(row[0]) == values["line"] == number
        assert float(row[1]) == pytest.approx(values["score"], abs=1e-5) == pytest.approx(sums[number - 1], abs=1e-5)
        assert float(row[2]) == pytest.approx(normalised[number - 1], abs=1e-5)
        assert row[3].split() == values["tokens"]
        assert len(row[4].split()) == len(values["token_scores"])


def test_several_models_score_together(score, model):
    alone = [float(line) for line in score()]
    assert [float(line) for line in score(model)] == pytest.approx(alone, abs=1e-5)
    doubled = [float(line) for line in score(model, "--model-weights", "0.5,1.5")]
    assert doubled == pytest.approx([2 * value for value in alone], abs=1e-5)
    assert "--model-weights: 1 weight for 2 models" in score(model, "--model-weights", "2", code=2)


def test_summaries_are_of_all_pairs(score):
    objects = [json.loads(line) for line in score("--format", "jsonl", "--word-scores")]
    total = -sum(values["score"] for values in objects)
    tokens = sum(len(values["token_scores"]) for values in objects)
    figures = {name: float(score("--summary", name)[0])
               for name in ("cross-entropy", "ce-sum", "ce-mean-words", "perplexity")}  # fmt: skip
    assert figures == pytest.approx(
        {"cross-entropy": total / 4, "ce-sum": total, "ce-mean-words": total / tokens,
         "perplexity": math.exp(total / tokens)}, rel=1e-4,
    )  # fmt: skip


def test_translations_in_subwords_have_the_score_that_translate_printed(score, model, tmp_path, capsys):
    assert run(["translate", model, "-i", str(tmp_path / "source"), "--format", "jsonl", "--word-scores"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    pieces = "".join(" ".join(values["tokens"]) + "\n" for values in found)
    for values, line in zip(found, score("--target-pieces", "-n", "0.6", target=pieces), strict=True):
        assert float(line) == pytest.approx(values["normalised"], abs=1e-4)


def test_an_n_best_list_is_scored_and_ranked(score, model, tmp_path, capsys):
    assert run(["translate", model, "-i", str(tmp_path / "source"), "--n-best", "-b", "3"]) == 0
    written = capsys.readouterr().out
    scored = score("--n-best", "--n-best-feature", "Again", target=written)
    assert len(scored) == len(written.splitlines())
    assert all(" Again= -" in line or " Again= 0.0" in line for line in scored)
    backwards = score("--n-best", "--weights", "F0=-1", "--weights", "Score=0", target=written)
    totals = [(int(line.split()[0]), float(line.split(" ||| ")[-1])) for line in backwards]
    assert totals == sorted(totals, key=lambda total: (total[0], -total[1]))
    assert all(total >= 0 for _, total in totals)


def test_a_corpus_is_filtered(score, model, tmp_path):
    kept = ["--kept-source", str(tmp_path / "kept.s"), "--kept-target", str(tmp_path / "kept.t")]
    scores = [float(line) for line in score("--backward", model)]
    assert scores[1:3] == [0.0, 0.0]
    assert 0 < min(scores[0], scores[3]) <= 1
    better = 0 if scores[0] > scores[3] else 3
    threshold = str(max(scores) - 1e-6)
    assert score("--backward", model, *kept, "--threshold", threshold) == []
    by_threshold = (tmp_path / "kept.s").read_text(), (tmp_path / "kept.t").read_text()
    assert by_threshold == (SOURCES.splitlines()[better] + "\n", TARGETS.splitlines()[better] + "\n")
    score("--backward", model, *kept, "--best-share", "0.25", "-o", str(tmp_path / "scores"))
    assert ((tmp_path / "kept.s").read_text(), (tmp_path / "kept.t").read_text()) == by_threshold
    assert [float(line) for line in (tmp_path / "scores").read_text().splitlines()] == scores
    score("--backward", model, *kept, "--best-share", "1")
    assert (tmp_path / "kept.s").read_text().splitlines() == [SOURCES.splitlines()[0], SOURCES.splitlines()[3]]


def test_files_for_kept_pairs_are_opened_before_pairs_are_scored(score, model, tmp_path):
    kept = ["--kept-source", str(tmp_path / "kept.s"), "--kept-target", str(tmp_path / "absent" / "kept.t")]
    (tmp_path / "short").write_text("one\n")
    said = score("--backward", model, *kept, "--best-share", "1", "--target", str(tmp_path / "short"), code=2)
    assert said.startswith(f"nmt-async: --kept-target: {kept[3]} cannot be written")
    assert not list(tmp_path.glob("*kept*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "-", "--source", "-"], "are both standard input"),
        (["--threshold", "0.5"], "--threshold means nothing without --backward"),
        (["--weights", "F0=1"], "--weights means nothing without --n-best"),
        (["--weights", "0.5,0.5"], "weights of models are --model-weights"),
        (["--n-best", "--weights", "F0"], "'F0' is not FEATURE=WEIGHT"),
        (["--n-best", "--weights", "F0=nan"], "'F0=nan' is not FEATURE=WEIGHT"),
        (["--n-best", "--summary", "ce-sum"], "--summary means nothing with --n-best; leave it out."),
        (["--n-best", "--format", "tsv"], "--format means nothing with --n-best; leave it out."),
        (["--n-best"], "line 1 of "),
        (["--n-best", "--n-best-feature", "a b"], "--n-best-feature: 'a b'"),
        (["--n-best", "--n-best-feature", "a\tb"], "--n-best-feature: 'a\\tb'"),
        (["--backward", "{model}", "--threshold", "0.5"], "--kept-source and --kept-target"),
        (
            [
                "--backward",
                "{model}",
                "--threshold",
                "0.5",
                "--best-share",
                "0.5",
                "--kept-source",
                "s",
                "--kept-target",
                "t",
            ],
            "--threshold means nothing with --best-share",
        ),
        (["--backward", "{model}", "--threshold", "2"], "--threshold: 2 is not"),
        (
            ["--backward", "{model}", "--threshold", "1", "--kept-source", "{folder}/k", "--kept-target", "{folder}/k"],
            "--output, --kept-source and --kept-target name one file twice",
        ),
        (["--backward", "{folder}"], "holds no model"),
        (["--target", "{folder}/absent"], "--target: there is no file"),
        (["--target", "{folder}/short"], "short has 1 lines and {folder}/source has more"),
        (["--source", "{folder}/short"], "short has 1 lines and {folder}/target has more"),
        (["--target", "{folder}/latin", "--strict"], "--target: line 1 of {folder}/latin is not UTF-8"),
        (["--normalize", "-1"], "--normalize: -1"),
    ],
)
def test_a_mistake_is_one_sentence(score, model, tmp_path, options, message):
    (tmp_path / "short").write_text("one\n")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n" * 4)
    names = {"folder": str(tmp_path), "model": model}
    said = score(*(option.format(**names) for option in options), code=2)
    assert message.format(**names) in said
    assert len(said.splitlines()) == 1


def test_both_files_are_needed(model, capsys):
    assert run(["score", model]) == 2
    assert capsys.readouterr().err == "nmt-async: score needs --source FILE and --target FILE.\n"
