from __future__ import annotations

import gzip
import hashlib
import os
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.text import corpus as corpus_module
from nmt_async.text import line_blocks
from nmt_async.text.corpus import AlignedFiles, InputFile, TabSeparated, corpus
from nmt_async.text.line_blocks import text_of

LINES = ["eins", "zwei \u2028 mit Trenner", "drei\x0b\x0c\x85vier", "", "fünf\rsechs"]
TEXT = "".join(line + "\n" for line in LINES).encode()


def lines_of(path: Path) -> list[str]:
    return [line.decode() for line in InputFile(path, "--train-source").lines()]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_lines_end_at_newlines_only_however_compressed(tmp_path: Path, compress) -> None:
    path = tmp_path / "text"
    path.write_bytes(compress(TEXT))
    assert lines_of(path) == LINES


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_concatenated_compressed_files_are_one_text(tmp_path: Path, compress) -> None:
    path = tmp_path / "text"
    path.write_bytes(compress(TEXT) + compress(TEXT))
    assert lines_of(path) == LINES + LINES


def test_windows_line_ends_byte_order_mark_and_missing_last_newline_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    assert lines_of(path) == ["one", "two", "three"]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.touch()
    assert lines_of(path) == []


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_cut_off_compressed_file_is_named(tmp_path: Path, compress) -> None:
    path = tmp_path / "text"
    path.write_bytes(compress(os.urandom(50_000).hex().encode())[:-20])
    with pytest.raises(UserError, match=r"--train-source: .*text is cut off"):
        lines_of(path)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text"
    stored = bytearray(gzip.compress(os.urandom(5_000).hex().encode()))
    stored[2000] ^= 255
    path.write_bytes(stored)
    with pytest.raises(UserError, match="text is damaged"):
        lines_of(path)


def test_the_digest_is_that_of_the_file_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(TEXT))
    file = InputFile(path, "--train-source")
    assert len(list(file.lines())) == len(LINES)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.bytes_read == file.size == path.stat().st_size


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(TEXT,), daemon=True)
    writer.start()
    file = InputFile(path, "--train-source")
    assert file.size is None
    assert [line.decode() for line in file.lines()] == LINES
    writer.join(timeout=10)


def pairs_of(part: AlignedFiles | TabSeparated) -> list[tuple[bytes, bytes]]:
    """Its pairs, one by one."""
    sides = [line_blocks.lines_of(text) for block in part.blocks() for text in (block.source, block.target)]
    return [
        pair
        for source, target in zip(sides[::2], sides[1::2], strict=True)
        for pair in zip(source, target, strict=True)
    ]


@given(text=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"ab", b"\xef\xbb\xbf", b"\t"])).map(b"".join),
       size=st.integers(1, 5))  # fmt: skip
def test_blocks_of_lines_have_the_lines(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, size: int
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "_BUFFER", size + 2)  # a byte order mark fits
        blocks = list(InputFile(path, "--train-source").line_blocks())
    assert [line for block in blocks for line in line_blocks.lines_of(block)] == list(
        InputFile(path, "--train-source").lines()
    )


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 7), st.integers(1, 40))
def test_blocks_pair_line_by_line_however_long_the_lines(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], pairs: int, most: int
) -> None:
    folder = tmp_path_factory.mktemp("text")
    sources = [b"s" * length for length in lengths]
    targets = [str(number).encode() for number in range(len(lengths))]
    for name, lines in {"en": sources, "de": targets}.items():
        (folder / name).write_bytes(text_of(lines))
    (folder / "tsv").write_bytes(text_of([b"\t".join(pair) for pair in zip(sources, targets, strict=True)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "PAIRS", pairs)
        patch.setattr(line_blocks, "BYTES", most)
        patch.setattr(corpus_module, "PAIRS", pairs)
        patch.setattr(corpus_module, "_BUFFER", 11)
        for part in corpus("train", [folder / "en"], [folder / "de"], [folder / "tsv"]):
            assert pairs_of(part) == list(zip(sources, targets, strict=True))
            for block in part.blocks():
                assert 1 <= block.pairs <= pairs
                if isinstance(part, AlignedFiles):
                    assert block.pairs == 1 or len(block.source) + len(block.target) <= most


def test_several_files_are_paired_in_order(tmp_path: Path) -> None:
    for name, text in {
        "a.en": "1\n2\n",
        "b.en": "3\n",
        "a.de": "eins\nzwei\n",
        "b.de": "drei\n",
        "c": "4\tvier\n",
    }.items():
        (tmp_path / name).write_text(text)
    parts = corpus(
        "train", [tmp_path / "a.en", tmp_path / "b.en"], [tmp_path / "a.de", tmp_path / "b.de"], [tmp_path / "c"]
    )
    pairs = [pair for part in parts for pair in pairs_of(part)]
    assert pairs == [(b"1", b"eins"), (b"2", b"zwei"), (b"3", b"drei"), (b"4", b"vier")]


@pytest.mark.parametrize(("source", "target"), [(2, 5), (5, 2), (0, 1), (1, 0)])
def test_unequal_line_counts_give_both_names_and_both_counts(tmp_path: Path, source: int, target: int) -> None:
    (tmp_path / "en").write_text("x\n" * source)
    (tmp_path / "de").write_text("x\n" * target)
    (part,) = corpus("train", [tmp_path / "en"], [tmp_path / "de"], [])
    with pytest.raises(UserError, match=rf"/en has {source} lines but .*/de has {target};"):
        list(part.blocks())


def test_unequal_numbers_of_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "en").touch()
    with pytest.raises(UserError, match="--train-source is given 2 times but --train-target once"):
        corpus("train", [tmp_path / "en"] * 2, [tmp_path / "en"], [])
    with pytest.raises(UserError, match="--valid-source is given once but --valid-target not at all"):
        corpus("valid", [tmp_path / "en"], [], [])


@pytest.mark.parametrize(("line", "columns"), [("no tab", 1), ("a\tb\tc", 3)])
def test_a_line_that_is_not_two_columns_is_named(tmp_path: Path, line: str, columns: int) -> None:
    (tmp_path / "tsv").write_text(f"good\tgut\n{line}\n")
    (part,) = corpus("train", [], [], [tmp_path / "tsv"])
    with pytest.raises(UserError, match=rf"line 2 of .*/tsv has {columns} columns"):
        list(part.blocks())


def test_missing_files_and_folders_are_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--train-tsv: there is no file .*/absent"):
        corpus("train", [], [], [tmp_path / "absent"])
    with pytest.raises(UserError, match=r"--train-tsv: .* is a folder"):
        corpus("train", [], [], [tmp_path])
