"""What no option can be is refused in one sentence, which names the file or the option."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.options import from_mapping, load_yaml
from nmt_async.training.options import TrainOptions


@pytest.mark.parametrize(
    "text",
    [
        "began: 2026-02-30", "seed: " + "9" * 5000, "nested: " + "[" * 5000, "a: [1", "a: !!python/name:os.system",
        "- a\n- b", "1: 2", "just words", "a: \x00",
    ],
    ids=["no-such-date", "too-many-digits", "too-deep", "unfinished", "a-python-object", "a-list", "a-number-as-key",
         "words", "a-control-character"],
)  # fmt: skip
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"options\.yaml"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\npreset: tiny\nseed: 2\n", "'seed' stands in line 1 and again in line 3; leave one out."),
        ("a: {b: 1, b: 2}\n", "'b' stands twice in line 1; leave one out."),
        ("conditions:\n  x: {}\n  y: {}\n  'x': {}\n", "'x' stands in line 2 and again in line 4; leave one out."),
        ("- - a: 1\n    a: 1\n", "'a' stands in line 1 and again in line 2; leave one out."),
    ],
    ids=["at the top", "in one line", "deeper", "in lists"],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_yaml(path)
    assert str(refused.value) == f"{path}: {said}"


def test_a_key_may_stand_beside_what_is_merged_in(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("base: &b {seed: 1, preset: tiny}\nmine: {<<: *b, seed: 2}\n", encoding="utf-8")
    assert load_yaml(path)["mine"] == {"seed": 2, "preset": "tiny"}


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"options\.yaml"):
        load_yaml(path)


def test_an_empty_file_gives_no_options(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert load_yaml(path) == {}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("ab01:-. \n[]{}'\"!&*#|>%@,?eT_"), max_size=40))
def test_whatever_is_in_a_file_is_options_or_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    said = ""
    try:
        assert isinstance(load_yaml(path), dict)
    except UserError as error:
        said = str(error)
    assert not said or str(path) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("x" * 300, "is too long for a path; choose a shorter one"),
        ("folder/" * 1000, "is too long for a path; choose a shorter one"),
        ("a\0b", "is not a path"),
        ("\ud800", "is not a path"),
    ],
)
def test_what_no_path_can_be_is_refused(path: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^here: --out: .* {said}\.$"):
        from_mapping(TrainOptions, {"out": path}, "here")
