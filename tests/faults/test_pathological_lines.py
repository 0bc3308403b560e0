"""Lines that are no sentences: `prepare` leaves them out under the filter that names them, and no worker meets one."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest
from nmt_async.cli.main import run
from training_runs import assert_each_batch_counted, run_small

from nmt_async.demo_corpus.generate import generate
from nmt_async.text import corpus
from nmt_async.text.prepared import PreparedData

PATHOLOGICAL: dict[str, list[bytes]] = {
    "too_long": [b"the dog sees a cat " * 10_000, b"x" * 3_000_000, "\u4e2d".encode() * 2_000_000],
    "invalid_utf8": [
        b"\xed\xa0\xbd\xed\xb8\x80 CESU", b"a lone \xed\xa0\x80 surrogate", "größer".encode("latin-1"),
        b"cut off \xe2\x82", "gemischt größer ".encode() + "größer".encode("cp1252"), b"\xff\xfeU\x00T\x00F\x00",
        b"overlong \xc0\xaf", b"\xf5\x90\x80\x80 beyond Unicode",
    ],
    "control_characters": [
        b"a\x00b", b"\x00" * 5000, "UTF-16".encode("utf-16-le"), b"bell \x07", b"\x1b[31mred", b"a\rb", b"form\x0cfeed",
        "C1 \x85 next line".encode(), b"delete \x7f",
    ],
    "empty": [
        b"", b" " * 50_000, b"\t", "\u3000\u00a0".encode(), "\ufeff".encode(), "\u200b".encode(), "\u2028".encode(),
    ],
}  # fmt: skip
"""By the filter that counts them."""

HARMLESS = [
    "\ufeffthe dog sees a cat",
    "the dog\u2028sees a cat",
    "the dog\u2029sees",
    "a\u0301 e\u0301",
    "\U0001f600 dog",
]
"""Odd, and yet a line of text each."""


def written(path: Path, lines: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def odd(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A folder that the command made of pairs with all that among them, on either side; and what it should keep."""
    folder = tmp_path_factory.mktemp("odd")
    good = list(generate(200, 2))
    pairs = [(source.encode(), target.encode()) for source, target in good]
    bad = [line for lines in PATHOLOGICAL.values() for line in lines]
    for number, line in enumerate(bad):
        pairs.insert(7 * number % len(pairs), (line, f"ein Hund {number}".encode()))
        pairs.insert(11 * number % len(pairs), (f"a cat {number}".encode(), line))
    for number, text in enumerate(HARMLESS):
        pairs.insert(30 * number + 1, (text.encode(), f"ein Hund Nummer {number}".encode()))
    typed = ["--train-source", str(written(folder / "text.en", [source for source, _ in pairs]))]
    typed += ["--train-target", str(written(folder / "text.de", [target for _, target in pairs]))]
    typed += ["--vocab", str(small_data / "vocabulary.model"), "--out", str(folder / "data"), "--threads", "1"]
    assert run(["prepare", *typed, "--quiet"]) == 0
    kept = [(source.decode(), target.decode()) for source, target in pairs if not {source, target} & set(bad)]
    return folder / "data", kept


def test_each_is_left_out_and_counted_under_its_filter(odd: tuple[Path, list[tuple[str, str]]]) -> None:
    counts = PreparedData.open(odd[0]).manifest["splits"]["train"]
    expected = {reason: 2 * len(lines) for reason, lines in PATHOLOGICAL.items()}
    assert {reason: count for reason, count in counts["removed"].items() if count} == expected
    assert counts["read"] == counts["kept"] + sum(counts["removed"].values())
    assert counts["kept"] == len(odd[1])


def test_both_sides_stay_aligned(odd: tuple[Path, list[tuple[str, str]]]) -> None:
    data, kept = PreparedData.open(odd[0]), odd[1]
    vocabulary = data.source_vocabulary
    for number, (source, target) in enumerate(kept):
        assert list(data.train.source[number]) == vocabulary.encode(source)
        assert list(data.train.target[number]) == vocabulary.encode(target)


def test_no_worker_meets_one(odd: tuple[Path, list[tuple[str, str]]], tmp_path: Path) -> None:
    data = PreparedData.open(odd[0])
    assert max(data.train.source.lengths.max(), data.train.target.lengths.max()) <= 256
    settings = {"cluster": "simulated", "workers": 2, "stop_after": "1e"}
    witness = run_small(data.folder, tmp_path / "run", **settings)
    assert witness.warnings == []
    assert assert_each_batch_counted(tmp_path / "run", data.folder, 1).set_aside == []


def test_what_switches_the_filters_off_keeps_the_sides_aligned_too(small_data: Path, tmp_path: Path) -> None:
    lines = [line for reason in ("invalid_utf8", "control_characters", "empty") for line in PATHOLOGICAL[reason]]
    others = [f"ein Hund {number}".encode() for number in range(len(lines))]
    typed = [
        "--train-source",
        str(written(tmp_path / "en", lines)),
        "--train-target",
        str(written(tmp_path / "de", others)),
    ]
    typed += ["--vocab", str(small_data / "vocabulary.model"), "--out", str(tmp_path / "data"), "--threads", "1"]
    typed += ["--keep-invalid-utf8", "--keep-control-characters", "--keep-empty", "--max-length-ratio", "0"]
    assert run(["prepare", *typed, "--quiet"]) == 0
    data = PreparedData.open(tmp_path / "data")
    assert len(data.train) == len(lines)
    for number, other in enumerate(others):
        assert list(data.train.target[number]) == data.target_vocabulary.encode(other.decode())


def test_a_line_that_no_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corpus, "LONGEST_LINE", 1 << 20)
    with gzip.open(tmp_path / "bomb.gz", "wb") as file:
        file.write(b"fine\n" + bytes(1 << 22))
    written(tmp_path / "de", [b"gut", b"schlecht"])
    typed = ["--train-source", str(tmp_path / "bomb.gz"), "--train-target", str(tmp_path / "de")]
    assert run(["prepare", *typed, "--out", str(tmp_path / "data"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "--train-source: line 2 of" in said
    assert said.endswith("has more than 1,048,576 bytes; is it text, with a sentence a line?\n")
    assert not (tmp_path / "data").exists()
