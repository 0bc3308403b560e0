"""``distil`` as a user types it: translations of teachers become data that ``train`` takes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nmt_async.cli.main import run
from sacrebleu.metrics.chrf import CHRF
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
    chrf = CHRF()
    found = [str(pair["target"]) for pair in pairs_in(tmp_path / "data")]
    for target, each, reference in zip(found, beam, references, strict=True):
        nearness = [chrf.sentence_score(candidate.text, [reference]).score for candidate in each.n_best]
        assert target == each.n_best[nearness.index(max(nearness))].text
    assert found != [each.text for each in beam]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.8, 1.0])
def test_an_interrupted_command_goes_on_behind_the_last_whole_line(
    teacher: Path, text: Path, tmp_path: Path, share: float
) -> None:
    """What stands there is taken as it is: here with a mark that no teacher makes."""
    assert distil(text, tmp_path / "whole", teacher, "--quiet") == 0
    lines = (tmp_path / "whole.text" / "translations.jsonl").read_bytes().splitlines(keepends=True)
    marked = b"".join([lines[0], *(line.replace(b'"target": "', b'"target": "MARK ') for line in lines[1:])])
    out, growing = tmp_path / "cut", tmp_path / "cut.text" / "translations.jsonl"
    growing.parent.mkdir()
    growing.write_bytes(marked[: round(share * len(marked)) - 1] if share else b"")
    whole = max(0, growing.read_bytes().count(b"\n") - 1)
    assert whole < len(LINES)
    assert distil(text, out, teacher, "--quiet") == 0
    found = [str(pair["target"]) for pair in pairs_in(out)]
    assert [target.startswith("MARK ") for target in found] == [True] * whole + [False] * (len(LINES) - whole)
    assert [target.removeprefix("MARK ") for target in found] == [p["target"] for p in pairs_in(tmp_path / "whole")]
    assert [pair["source"] for pair in pairs_in(out)] == LINES


def test_killed_processes_lose_no_line(teacher: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "long.en", tmp_path / "data"
    lines = [f"{line} {other}".strip() for line in LINES for other in LINES] * 20
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
    assert process.wait(60) == -signal.SIGKILL, "it was at work"
    before = growing.read_bytes()
    assert 20 < before.count(b"\n") < len(lines)
    assert subprocess.run(start, timeout=240, check=False).returncode == 0
    assert growing.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
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
        ("{teacher} --out {new} --source {empty}", "--source has no lines"),
        ("{teacher} --out {new} --source {text} --threshold 1", "none of 10 pairs is kept; look at"),
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
        ("{teacher} --out {new} --source {text} --text {text}", "--text: {text} cannot be written"),
        ("{teacher} --out {new} --source {text} --tag __news__", "--tag"),
        ("{teacher} --out {new} --source {text} --text {full}", "--text: {full} has files that distil did not write"),
        ("{teacher} --out {new} --source {text} --text {new}/inside", "must lie apart"),
        ("{teacher} --out {new}/inside --source {text} --text {new}", "must lie apart"),
        ("{teacher} --out . --source {text}", "is a folder that is not empty"),
        ("{teacher} --out {new} --source {text} --valid-source {text} --valid-target {short}", "has 10 lines but"),
        ("{teacher} --out {new} --source - --valid-source - --valid-target {text}", "standard input is for --source"),
        ("{teacher} --out {new} --source - --reference - --beam-size 2", "standard input is for --source"),
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
    translated = said.startswith("none of")  # so that translations are kept
    assert (tmp_path / "new.text").exists() == translated
    assert [path.read_text() for path in (tmp_path / "short", text)] == ["a dog\n", "\n".join(LINES) + "\n"]


def test_what_the_user_wrote_is_not_written_over(
    teacher: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(text, tmp_path / "data", teacher, "--quiet") == 0
    there = tmp_path / "data.text"
    kept = {path.name: path.read_bytes() for path in there.iterdir()}
    assert distil(there / "source.txt", tmp_path / "other", teacher, "--text", there) == 2
    assert f"--source: {there / 'source.txt'} is in {there}" in capsys.readouterr().err
    # Other pairs than those in the folder, and nobody has said that it may be replaced.
    assert distil(text, tmp_path / "data", teacher, "--best-share", "0.3") == 2
    assert "has other pairs than are kept now; pass --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in there.iterdir()} == kept
    # Data of other text: it is said before anything is translated.
    assert distil(text, tmp_path / "data", teacher, "--text", tmp_path / "elsewhere") == 2
    assert "was prepared from other text" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_is_cut_is_not_kept(teacher: Path, tmp_path: Path) -> None:
    text = tmp_path / "mono.en"
    text.write_text(" ".join(["the big dog runs"] * 9) + "\nthe big dog runs\n")
    assert distil(text, tmp_path / "data", teacher, "--max-length", "20", "--quiet") == 0
    assert [pair["cut"] for pair in pairs_in(tmp_path / "data")] == [True, False]
    assert [source for source, _ in kept_in(tmp_path / "data")] == ["the big dog runs"]


def test_after_a_mistake_the_command_can_be_mended(teacher: Path, text: Path, tmp_path: Path) -> None:
    assert distil(text, tmp_path / "data", teacher, "--tag", "__nope__", "--quiet") == 2
    assert distil(text, tmp_path / "data", teacher, "--quiet") == 0


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
        ((text, out, teacher, "--reference", text.with_name("further")), "another --reference, or without one"),
    ):
        assert distil(*words, "--quiet") == 2
        errors = capsys.readouterr().err
        assert said in errors
        assert errors.count("\n") == 1
    growing = tmp_path / "data.text" / "translations.jsonl"
    pair = growing.read_bytes().splitlines(keepends=True)[1]
    for content in (b"no JSON\n", b'{"format": 9, "made-with": {}}\n' + pair, b"[]\n" + pair):
        growing.write_bytes(content)
        assert distil(text, out, teacher, "--quiet") == 2
        assert "is no file of translations" in capsys.readouterr().err
        assert growing.read_bytes() == content


PAIR = {"source": LINES[2], "reference": None, "target": "b", "forward": 0.1, "backward": None, "cut": False}


@pytest.mark.parametrize(
    "damaged",
    [
        b"{}", b"no JSON", bytes(40), b"\xff\xfe", *(
            json.dumps({**PAIR, **change}).encode() for change in (
                {"source": 1}, {"forward": "c"}, {"forward": math.nan}, {"forward": -1e9}, {"backward": []}, {"cut": 2},
            )
        ),
    ],
)  # fmt: skip
def test_behind_a_damaged_pair_all_is_translated_anew(
    teacher: Path, text: Path, tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    out, growing = tmp_path / "data", tmp_path / "data.text" / "translations.jsonl"
    assert distil(text, out, teacher, "--quiet") == 0
    whole = pairs_in(out)
    lines = growing.read_bytes().splitlines()
    growing.write_bytes(b"\n".join([*lines[:3], damaged, *lines[4:]]) + b"\n")
    assert distil(text, out, teacher) == 0
    assert "is damaged behind pair 2" in capsys.readouterr().err
    assert [(pair["source"], pair["target"]) for pair in pairs_in(out)] == [(p["source"], p["target"]) for p in whole]


def test_two_commands_do_not_write_one_file(tmp_path: Path) -> None:
    first = TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4}, print)
    with pytest.raises(UserError, match="another process writes"):
        TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4}, print)
    first.close()
    TranslationsFile(tmp_path / "translations.jsonl", {"beam-size": 4}, print).close()
