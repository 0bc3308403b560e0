"""``distil`` as a user types it: translations of teachers become data that ``train`` takes."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nmt_async.cli.main import run
from sacrebleu.metrics.bleu import BLEU
from small_model import save_small_model
from training_runs import SIZES

from nmt_async import Scorer, Translator
from nmt_async.checkpoints.model_folder import load_model, save_model
from nmt_async.distillation.translations import TranslationsFile
from nmt_async.errors import UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.score.filtering import dual_score
from nmt_async.score.options import ScoringOptions
from nmt_async.text.prepared import PreparedData

LINES = [
    "the dog sees the cat", "a small bird hears", "never and or", "the red house in the garden", "a cat on the house",
    "", "the big dog runs", "birds", "a dog and a cat", "the garden",
]  # fmt: skip
SHORT = ["--max-length-factor", "1.5"]
"""Of what an untrained model says, most would be too long for its source."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def other(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another teacher with the same vocabulary."""
    loaded = load_model(teacher)
    layout = FlatLayout(loaded.model)
    vector = layout.gather(loaded.model) * 0.9
    folder = tmp_path_factory.mktemp("other") / "model"
    vocabulary = loaded.source_vocabulary.path
    save_model(folder, loaded.configuration, layout.named(vector), vocabulary, vocabulary)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mono.en"
    path.write_text("\n".join(LINES) + "\n")
    return path


def distil(text: Path, out: Path, *words: object) -> int:
    return run(["distil", *map(str, words), "--source", str(text), "--out", str(out), *SHORT])


def pairs_in(out: Path) -> list[dict[str, object]]:
    lines = (out.with_name(out.name + ".text") / "translations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def kept_in(out: Path) -> list[tuple[str, str]]:
    folder = out.with_name(out.name + ".text")
    sides = [(folder / name).read_text().splitlines() for name in ("source.txt", "target.txt")]
    return list(zip(*sides, strict=True))


def test_a_student_is_trained_on_what_its_teacher_says(
    teacher: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    (tmp_path / "valid.en").write_text("the dog\n")
    (tmp_path / "valid.de").write_text("a cat\n")
    valid = ["--valid-source", tmp_path / "valid.en", "--valid-target", tmp_path / "valid.de"]
    assert distil(text, out, teacher, *valid, "--device", "cpu") == 0
    said = capsys.readouterr().out
    translations = Translator(teacher, device="cpu").translate(LINES, max_length_factor=1.5)
    pairs = pairs_in(out)
    assert [(pair["source"], pair["target"]) for pair in pairs] == [
        (line, translation.text) for line, translation in zip(LINES, translations, strict=True)
    ]
    kept = [(line, each.text) for line, each in zip(LINES, translations, strict=True) if line and each.text]
    assert kept_in(out) == kept
    data = PreparedData.open(out)
    assert said.startswith(f"{out} has {len(data.train):,} pairs of {len(LINES)} lines: {len(kept)} were judged")
    assert data.source_vocabulary.is_same_as(load_model(teacher).source_vocabulary)
    sizes = [word for name, size in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(size))]
    trained = ["train", str(out), "--out", str(tmp_path / "student"), "--cluster", "simulated", "--stop-after", "2u"]
    assert run([*trained, *sizes, "--cpu-threads", "1", "--quiet"]) == 0


def test_a_pair_is_judged_by_the_teachers_own_scores(teacher: Path, text: Path, tmp_path: Path) -> None:
    assert distil(text, tmp_path / "data", teacher, "--quiet") == 0
    pairs = pairs_in(tmp_path / "data")
    translations = Translator(teacher, device="cpu").translate(LINES, max_length_factor=1.5)
    subwords = [" ".join(translation.n_best[0].tokens) for translation in translations]
    scorer = Scorer(teacher, device="cpu").line_scorer(ScoringOptions(), in_pieces=True)
    for pair, its in zip(pairs, scorer.score_window(list(zip(LINES, subwords, strict=True))), strict=True):
        if pair["source"]:
            # float32: some hundred ulp of numbers of this size, summed over some words
            assert pair["forward"] == pytest.approx(its.cross_entropy, abs=1e-4)


def test_several_teachers_translate_together(teacher: Path, other: Path, text: Path, tmp_path: Path) -> None:
    assert distil(text, tmp_path / "data", teacher, other, "--weights", "0.3,0.7", "--quiet") == 0
    together = Translator([teacher, other], weights="0.3,0.7", device="cpu")
    wanted = [each.text for each in together.translate(LINES, max_length_factor=1.5)]
    assert [pair["target"] for pair in pairs_in(tmp_path / "data")] == wanted


def test_the_worst_are_left_out_and_the_text_can_be_filtered_anew(
    teacher: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert distil(text, out, teacher, "--best-share", "0.5") == 0
    pairs = pairs_in(out)
    scores = [math.exp(-float(str(pair["forward"]))) if pair["source"] else 0.0 for pair in pairs]
    best = sorted(range(len(pairs)), key=lambda index: -scores[index])[: len(LINES) // 2]
    assert kept_in(out) == [(pairs[i]["source"], pairs[i]["target"]) for i in sorted(best)]
    assert f"{min(scores[index] for index in best):.3f} or more" in capsys.readouterr().out
    translated = (tmp_path / "data.text" / "translations.jsonl").stat()
    assert distil(text, out, teacher, "--threshold", "1e-9", "--overwrite", "--quiet") == 0
    assert len(kept_in(out)) > len(best)
    again = (tmp_path / "data.text" / "translations.jsonl").stat()
    assert (again.st_mtime_ns, again.st_size) == (translated.st_mtime_ns, translated.st_size)  # nothing was translated


def test_a_backward_model_judges_too(teacher: Path, other: Path, text: Path, tmp_path: Path) -> None:
    assert distil(text, tmp_path / "data", teacher, "--backward", other, "--best-share", "0.5", "--quiet") == 0
    pairs = pairs_in(tmp_path / "data")
    back = Scorer(other, device="cpu").score([str(p["target"]) for p in pairs], [str(p["source"]) for p in pairs])
    scores = []
    for pair, its in zip(pairs, back, strict=True):
        assert pair["backward"] == pytest.approx(its.cross_entropy, abs=1e-4)
        scores.append(dual_score(float(str(pair["forward"])), float(str(pair["backward"]))) if pair["source"] else 0.0)
    best = sorted(sorted(range(len(pairs)), key=lambda index: -scores[index])[: len(LINES) // 2])
    assert [source for source, _ in kept_in(tmp_path / "data")] == [pairs[index]["source"] for index in best]


def test_the_candidate_nearest_to_the_reference_is_taken(teacher: Path, text: Path, tmp_path: Path) -> None:
    beam = Translator(teacher, device="cpu").translate(LINES, n_best=4, beam_size=4, max_length_factor=1.5)
    # The reference of each line is the last of its candidates, so that the most probable one is hardly ever taken.
    references = [each.n_best[-1].text for each in beam]
    (tmp_path / "reference").write_text("\n".join(references) + "\n")
    options = ("--reference", tmp_path / "reference", "--beam-size", "4", "--quiet")
    assert distil(text, tmp_path / "data", teacher, *options) == 0
    bleu = BLEU(effective_order=True)
    found = [str(pair["target"]) for pair in pairs_in(tmp_path / "data")]
    for target, each, reference in zip(found, beam, references, strict=True):
        nearness = [bleu.sentence_score(candidate.text, [reference]).score for candidate in each.n_best]
        assert target == each.n_best[nearness.index(max(nearness))].text
    assert found != [each.text for each in beam]


def test_an_interrupted_command_goes_on_behind_the_last_whole_line(teacher: Path, text: Path, tmp_path: Path) -> None:
    assert distil(text, tmp_path / "whole", teacher, "--quiet") == 0
    whole = (tmp_path / "whole.text" / "translations.jsonl").read_bytes()
    for bytes_left in (0, 3, len(whole) // 2, len(whole) - 1):
        out = tmp_path / f"cut-{bytes_left}"
        (tmp_path / f"{out.name}.text").mkdir()
        growing = tmp_path / f"{out.name}.text" / "translations.jsonl"
        growing.write_bytes(whole[:bytes_left])
        assert distil(text, out, teacher, "--quiet") == 0
        assert [(p["source"], p["target"]) for p in pairs_in(out)] == [
            (p["source"], p["target"]) for p in pairs_in(tmp_path / "whole")
        ]
        assert kept_in(out) == kept_in(tmp_path / "whole")


def test_killed_processes_lose_no_line(teacher: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "long.en", tmp_path / "data"
    lines = [f"{line} {other}".strip() for line in LINES for other in LINES] * 3
    text.write_text("\n".join(lines) + "\n")
    words = ["distil", str(teacher), "--source", str(text), "--out", str(out), "--mini-batch", "2", "--workers", "2"]
    words += [*SHORT, "--quiet", "--maxi-batch", "4", "--device", "cpu", "--threads", "1"]
    start = [sys.executable, "-c", "from nmt_async.cli.start import main; main()", *words]
    growing = tmp_path / "data.text" / "translations.jsonl"
    process = subprocess.Popen(start)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if growing.exists() and growing.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert subprocess.run(start, timeout=120, check=False).returncode == 0
    assert [pair["source"] for pair in pairs_in(out)] == lines
    expected = [each.text for each in Translator(teacher, device="cpu").translate(lines, max_length_factor=1.5)]
    assert [pair["target"] for pair in pairs_in(out)] == expected


def test_the_same_command_again_finds_nothing_to_do(
    teacher: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert distil(text, out, teacher, "--quiet") == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert distil(text, out, teacher) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{teacher} --out {new} --source {missing}", "missing"),
        ("{missing} --out {new} --source {text}", "missing"),
        ("{teacher} --source {text}", "--out is missing"),
        ("{teacher} --out {full} --source {text}", "is a folder that is not empty"),
        ("{teacher} --out {new} --source {empty}", "none of 0 pairs is kept"),
        ("{teacher} --out {new} --source {text} --threshold 1", "none of 10 pairs is kept; lower --threshold"),
        ("{teacher} --out {new} --source {text} --threshold 0", "not above 0"),
        ("{teacher} --out {new} --source {text} --best-share 1.5", "not above 0"),
        ("{teacher} --out {new} --source {text} --best-share 0.5 --threshold 0.5", "--threshold means nothing"),
        ("{teacher} --out {new} --source {text} --reference {text} --beam-size 2", "both {text}"),
        ("{teacher} --out {new} --source {text} --reference {short} --beam-size 2", "1 lines and"),
        ("{teacher} --out {new} --source {text} --reference {short} --beam-size 1", "--beam-size 1 finds one"),
        (
            "{teacher} --out {new} --source {text} --reference {short} --output-sampling full",
            "--reference means nothing",
        ),
        ("{teacher} --out {new} --source {text} --backward {missing}", "missing"),
        ("{teacher} --out {new} --source {text} --valid-source {missing} --valid-target {text}", "missing"),
        ("{teacher} --out {new} --source {text} --text {text}", "--text: {text} cannot be made"),
        ("{teacher} --out {new} --source {text} --tag __news__", "--tag"),
        ("{teacher} --out {new} --source {text} --vocab-size 1", "--vocab-size 1"),
    ],
)
def test_bad_input_is_one_sentence(
    teacher: Path, text: Path, tmp_path: Path, words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    (tmp_path / "empty").write_text("")
    (tmp_path / "short").write_text("a dog\n")
    names = {name: tmp_path / name for name in ("full", "empty", "short", "new", "missing")}
    names |= {"teacher": teacher, "text": text}
    assert run(["distil", *words.format(**names).split(), *SHORT, "--quiet"]) == 2
    errors = capsys.readouterr().err
    assert said.format(**names) in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_translations_of_something_else_are_refused(
    teacher: Path, other: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert distil(text, out, teacher, "--quiet") == 0
    further = tmp_path / "further"
    further.write_text(text.read_text().replace("birds", "cats"))
    fewer = tmp_path / "fewer"
    fewer.write_text("\n".join(LINES[:4]) + "\n")
    for words, said in (
        ((text, out, other), "other teachers"),
        ((text, out, teacher, "--beam-size", "2"), "--beam-size 5, not 2"),
        ((text, out, teacher, "--backward", other), "another --backward, or without one"),
        ((further, out, teacher), f"line 8 of {further} is not that of"),
        ((fewer, out, teacher), "has 10 lines"),
    ):
        assert distil(*words, "--quiet") == 2
        errors = capsys.readouterr().err
        assert said in errors
        assert errors.count("\n") == 1
    for content in (b"no JSON\n", b'{"format": 9, "made-with": {}}\n', b"[]\n"):
        (tmp_path / "data.text" / "translations.jsonl").write_bytes(content)
        assert distil(text, out, teacher, "--quiet") == 2
        assert "is no file of translations" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "{}", "no JSON", '{"source": 1, "target": "b", "forward": 0.1}',
        '{"source": "a", "target": "b", "forward": "c"}',
        '{"source": "the dog sees the cat", "target": "b", "forward": NaN}',
        '{"source": "the dog sees the cat", "target": "b", "forward": -1e9}',
        '{"source": "the dog sees the cat", "target": "b", "forward": 1, "backward": []}',
    ],
)  # fmt: skip
def test_a_damaged_pair_is_named(
    teacher: Path, text: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(text, tmp_path / "data", teacher, "--quiet") == 0
    growing = tmp_path / "data.text" / "translations.jsonl"
    lines = growing.read_text().splitlines()
    growing.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    shutil.rmtree(tmp_path / "data")
    assert distil(text, tmp_path / "data", teacher, "--quiet") == 2
    assert "damaged (pair 1)" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_two_commands_do_not_write_one_file(tmp_path: Path) -> None:
    first = TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4})
    with pytest.raises(UserError, match="another process writes"):
        TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4})
    first.close()
    TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4}).close()
