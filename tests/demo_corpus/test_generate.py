"""The generated corpus: one correct translation each, fixed by its seed, and numerals that count right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.demo_corpus import numerals
from nmt_async.demo_corpus.generate import LONGEST, SHORTEST, generate, splits, write
from nmt_async.demo_corpus.lexicon import DECLENSIONS, SUBJECTS, VERBS

SIZES = {"test": 50, "valid": 40, "train": 300}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nmt_async.demo_corpus.generate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 300), seed=st.integers(0, 2**32))
def test_same_seed_gives_same_pairs_without_repeating_a_source(count: int, seed: int) -> None:
    pairs = list(generate(count, seed))
    assert pairs == list(generate(count, seed))
    assert len({source for source, _ in pairs}) == count


def test_a_source_has_one_translation_whatever_the_seed() -> None:
    translations: dict[str, str] = {}
    for seed in range(5):
        for source, target in generate(8000, seed):
            assert translations.setdefault(source, target) == target


def test_every_pair_is_short_clean_and_punctuated_alike() -> None:
    for source, target in generate(10_000, 7):
        assert SHORTEST <= len(source.split(" ")) <= LONGEST
        assert re.fullmatch(r"[A-Za-z,'-]+( [A-Za-z,'-]+)*[.?]?", source), source
        assert re.fullmatch(r"[A-Za-zÄÖÜäöüß,]+( [A-Za-zÄÖÜäöüß,]+)*[.?]?", target), target
        assert (source[-1] in ".?") == source[0].isupper()
        assert source[-1] == target[-1] or target[-1].isalpha()


def test_words_are_few_enough_to_learn() -> None:
    words = {word for source, _ in generate(20_000, 1) for word in re.findall(r"[a-z]+", source.lower())}
    assert 150 <= len(words) <= 350


def test_parts_are_disjoint_and_more_training_text_leaves_the_test_part_alone() -> None:
    parts = splits(SIZES, seed=1)
    assert {name: len(pairs) for name, pairs in parts.items()} == SIZES
    sources = [source for pairs in parts.values() for source, _ in pairs]
    assert len(set(sources)) == sum(SIZES.values())
    assert splits(SIZES | {"train": 900}, seed=1)["test"] == parts["test"]
    assert splits(SIZES, seed=2)["test"] != parts["test"]


def test_german_verb_stands_second_after_a_fronted_time_and_first_in_a_question() -> None:
    finite = {verb.present(person).removeprefix(verb.particle) for verb in VERBS for person in range(4)}
    finite |= set("habe hast hat haben werde wirst wird werden".split())  # noqa: SIM905
    finite |= set("kann kannst können sollte solltest sollten will willst wollen".split())  # noqa: SIM905
    subjects = {subject.german.split()[0].lower() for subject in SUBJECTS}
    fronted = questions = 0
    for source, target in generate(5000, 3):
        tokens = target.rstrip(".?").lower().split()
        if source.startswith(("Yesterday", "Today", "Now", "Tomorrow")) and "Today is" not in source:
            assert tokens[1] in finite, target
            assert tokens[2] in subjects, target
            fronted += 1
        if source.startswith(("Do ", "Does ", "Did ", "Will ", "Can ", "Should ")):
            assert tokens[0] in finite, target
            assert tokens[1] in subjects, target
            questions += 1
    assert fronted > 50
    assert questions > 50


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (1, "one", "eins"), (16, "sixteen", "sechzehn"), (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"), (30, "thirty", "dreißig"), (70, "seventy", "siebzig"),
        (101, "one hundred and one", "einhunderteins"),
        (342, "three hundred and forty-two", "dreihundertzweiundvierzig"),
        (1000, "one thousand", "eintausend"),
        (2005, "two thousand and five", "zweitausendfünf"),
        (12_340, "twelve thousand three hundred and forty", "zwölftausenddreihundertvierzig"),
        (101_001, "one hundred and one thousand and one", "einhunderteintausendeins"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(number: int, english: str, german: str) -> None:
    assert (numerals.english(number), numerals.german(number)) == (english, german)


@given(first=st.integers(0, 999_999), second=st.integers(0, 999_999))
def test_different_numbers_are_written_differently(first: int, second: int) -> None:
    assert (numerals.english(first) == numerals.english(second)) == (first == second)
    assert (numerals.german(first) == numerals.german(second)) == (first == second)


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (1, "first", "erst"), (3, "third", "dritt"), (7, "seventh", "siebt"), (8, "eighth", "acht"),
        (12, "twelfth", "zwölft"), (20, "twentieth", "zwanzigst"), (23, "twenty-third", "dreiundzwanzigst"),
        (31, "thirty-first", "einunddreißigst"), (59, "fifty-ninth", "neunundfünfzigst"),
    ],
)  # fmt: skip
def test_ordinals(number: int, english: str, german: str) -> None:
    assert (numerals.english_ordinal(number), numerals.german_ordinal(number)) == (english, german)


def test_years_are_said_in_hundreds_before_2000() -> None:
    years = {1900: "nineteen hundred", 1905: "nineteen hundred and five", 1984: "nineteen eighty-four"}
    assert {year: numerals.english_year(year) for year in years} == years
    assert numerals.german_year(1984) == "neunzehnhundertvierundachtzig"
    assert (numerals.english_year(2019), numerals.german_year(2019)) == (
        "two thousand and nineteen",
        "zweitausendneunzehn",
    )


def test_articles_and_adjective_endings_follow_gender_and_case() -> None:
    assert DECLENSIONS["a", "nominative", "m"] == ("ein", "er")
    assert DECLENSIONS["a", "accusative", "m"] == ("einen", "en")
    assert DECLENSIONS["a", "accusative", "n"] == ("ein", "es")
    assert DECLENSIONS["a", "accusative", "p"] == ("", "e")
    assert DECLENSIONS["no", "accusative", "p"] == ("keine", "en")
    assert DECLENSIONS["the", "accusative", "f"] == ("die", "e")
    assert DECLENSIONS["this", "accusative", "n"] == ("dieses", "e")
    assert DECLENSIONS["her", "dative", "f"] == ("ihrer", "en")


def test_command_writes_aligned_files_the_same_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("--out", tmp_path / "a b", "--train", 200, "--valid", 20, "--test", 10)
        assert (done.returncode, done.stderr) == (0, "")
        files = {path.name: path.read_text("utf-8").splitlines() for path in (tmp_path / "a b").iterdir()}
        lengths = {"train.en": 200, "train.de": 200, "valid.en": 20, "valid.de": 20, "test.en": 10, "test.de": 10}
        assert {name: len(lines) for name, lines in files.items()} == lengths
        expected = splits({"test": 10, "valid": 20, "train": 200}, seed=1)
        assert list(zip(files["train.en"], files["train.de"], strict=True)) == expected["train"]


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("--out", tmp_path / "file" / "inside")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--out" in done.stderr
    assert run("--out", tmp_path, "--train", "0").returncode == 2


def test_nothing_half_written_stays_when_a_file_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.de").mkdir()
    with pytest.raises(OSError, match="train"):
        write(tmp_path, SIZES, seed=1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
