"""The scripts of the English-Indonesian example, run as run.sh runs them, on made-up text."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from nmt_async.cli.main import run as nmt_async

from nmt_async.text.corpora import read_corpora

EXAMPLE = Path(__file__).parents[2] / "examples" / "en-id"
DOMAINS = ("general", "news", "religious")


def run(script: str, *words: object, data: Path | str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / script), *map(str, words)]
    environment = {**os.environ, "NMT_ASYNC_DATA": str(data)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """As NMT_ASYNC_DATA has it, with 45 training pairs of each domain."""
    folder = tmp_path / "data"
    (folder / "en-id").mkdir(parents=True)
    for domain in DOMAINS:
        for part, count in (("train-small", 45), ("test", 9)):
            for language in ("en", "id"):
                lines = "".join(f"{domain} {language} {number}\n" for number in range(1, count + 1))
                (folder / "en-id" / f"{domain}.{part}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def recipe(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(EXAMPLE / "run.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_every_command_of_the_recipe_is_accepted_by_what_it_calls(capsys: pytest.CaptureFixture[str]) -> None:
    done = recipe("core", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout.replace("\\\n", " ")
    typed = [shlex.split(line.removeprefix("$ ")) for line in text.splitlines() if line.startswith("$ ")]
    ours = [words[1:] for words in typed if words[0] == "nmt-async"]
    for words in ours:
        assert nmt_async([*words, "--dump-config"]) == 0, capsys.readouterr().err
    models = {words[words.index("--out") + 1] for words in ours if words[0] == "train"}
    assert len(models) == 24, "twelve in each direction"
    translations = [words for words in ours if words[0] == "translate"]
    assert {words[1] for words in translations} == models
    assert len(translations) == len({words[words.index("-o") + 1] for words in translations}) == 2 * 3 * (12 + 4)
    matrices = [words for words in typed if words[1].endswith("matrix.py")]
    made = {words[words.index("-o") + 1] for words in translations}
    for words in matrices:
        rows, target = words[words.index("--models") + 1 : words.index("--out")], words[words.index("--target") + 1]
        assert {f"{words[2]}/{row}.{domain}.{target}" for row in rows for domain in DOMAINS} <= made
    assert len(matrices) == 4


def test_a_word_that_the_recipe_does_not_know_is_one_sentence() -> None:
    done = recipe("full")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run.sh: 'full' is not known; give quick or core, en-id or id-en")


def test_the_text_is_divided_and_declared(corpora: Path, tmp_path: Path) -> None:
    out = tmp_path / "text"
    done = run("data.py", "--out", out, "--test-lines", 4, data=corpora)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "news.valid.id").read_text() == "news id 20\nnews id 40\n"
    train = (out / "news.train.en").read_text().splitlines()
    assert train == [f"news en {number}" for number in range(1, 46) if number not in (20, 40)]
    assert len((out / "general.test.en").read_text().splitlines()) == 4
    for direction in ("en-id", "id-en"):
        for name, tags in (("union", ["", "", ""]), ("tags", [f"__{domain}__" for domain in DOMAINS])):
            declared = read_corpora(out / f"{direction}.{name}.yaml").corpora
            assert [corpus.name for corpus in declared] == list(DOMAINS)
            assert [corpus.tag for corpus in declared] == tags
            source, target = declared[1].train[0].files
            assert (source.path.name, target.path.name) == tuple(f"news.train.{side}" for side in direction.split("-"))


def test_a_text_that_is_not_there_is_named(corpora: Path, tmp_path: Path) -> None:
    assert "NMT_ASYNC_DATA names no folder" in run("data.py", "--out", tmp_path / "text").stderr
    (corpora / "en-id" / "news.test.id.gz").write_bytes(b"\x1f\x8bnot gzip")
    for what in ("is damaged|cannot be read", "cannot be read"):
        done = run("data.py", "--out", tmp_path / "text", data=corpora)
        assert done.returncode == 2
        assert re.search(rf"news\.test\.id\.gz ({what})", done.stderr)
        (corpora / "en-id" / "news.test.id.gz").unlink(missing_ok=True)


def test_the_matrix_has_every_model_on_every_domain(tmp_path: Path) -> None:
    text, translations = tmp_path / "text", tmp_path / "translations"
    text.mkdir()
    translations.mkdir()
    for domain in DOMAINS[:2]:
        lines = [f"this is line number {number} of all lines about {domain}" for number in range(60)]
        worse = [line.replace("number", "numeral").replace("about", "on") for line in lines]
        for path, content in (
            (text / f"{domain}.test.id", lines),
            (translations / f"right.{domain}.id", lines),
            (translations / f"alike.{domain}.id", lines),
            (translations / f"not-so-right.{domain}.id", worse),
        ):
            path.write_text("".join(f"{line}\n" for line in content))
    words = ["--text", text, "--target", "id", "--samples", 200, "--domains", *DOMAINS[:2], "--out", tmp_path / "t.md"]
    done = run("matrix.py", translations, *words, "--models", "right", "alike", "not-so-right")
    assert done.returncode == 0, done.stderr
    bleu, chrf = (tmp_path / "t.md").read_text().strip().split("\n\n")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in bleu.splitlines()]
    assert rows[0] == ["BLEU", "general", "news", "mean"]
    assert rows[2:4] == [["right", *["100.0 ± 0.0"] * 2, "100.0"], ["alike", *["100.0 ± 0.0"] * 2, "100.0"]]
    assert rows[4][0] == "not so right"
    assert all(re.fullmatch(r"\d\d\.\d ± \d\.\d\*", cell) for cell in rows[4][1:3])
    assert chrf.startswith("| chrF | general | news | mean |")
    (translations / "right.news.id").write_text("too short\n")
    done = run("matrix.py", translations, *words, "--models", "right")
    assert done.returncode == 2
    assert "right.news.id has 1 lines but" in done.stderr
