"""What others wrote is read as what it should be, or refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nmt_async.errors import LONGEST, shown
from nmt_async.reading import as_dataclass, json_object, open_ordinary, read_text, within


@dataclass(frozen=True)
class Inner:
    count: int
    ages: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    name: str
    share: float
    parts: tuple[Inner, ...]
    best: float | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


WHOLE = {"name": "x", "share": 1, "parts": [{"count": 3, "ages": {"5": 1}}], "best": None, "rest": {"a": [1]}}


def test_values_of_their_types_become_the_dataclass() -> None:
    assert as_dataclass(Outer, WHOLE) == Outer("x", 1.0, (Inner(3, {5: 1}),), None, {"a": [1]})
    assert as_dataclass(Inner, {"count": 1, "other": 2}, others=True) == Inner(1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "name cannot be '3'"),
        ({"name": "\ud800"}, "surrogates not allowed"),
        ({"share": "1"}, "share cannot be '1'"),
        ({"share": True}, "share cannot be 'True'"),
        ({"share": 10**400}, "share has too many digits"),
        ({"parts": {}}, "parts cannot be"),
        ({"parts": [3]}, "Inner is not a mapping"),
        ({"parts": [{"count": 1.0}]}, "count cannot be '1.0'"),
        ({"parts": [{"count": 2**63}]}, "count has too many digits"),
        ({"parts": [{"count": 1, "ages": {"x": 1}}]}, "invalid literal"),
        ({"parts": [{}]}, "count is missing"),
        ({"other": 1}, "'other' is not known"),
    ],
)
def test_a_value_of_another_type_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        as_dataclass(Outer, {**WHOLE, **changes})


@pytest.mark.parametrize("name", ["", "/etc", "../x", "a/../../x", "a\0b", None, 3, "."])
def test_what_is_not_in_the_folder_is_not_within_it(name: Any, tmp_path: Path) -> None:
    assert within(tmp_path, "checkpoints/step-3") == tmp_path / "checkpoints" / "step-3"
    with pytest.raises(ValueError, match="is not in"):
        within(tmp_path, name)


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not an ordinary file"):
            open_ordinary(path)
    with pytest.raises(FileNotFoundError):
        open_ordinary(tmp_path / "nothing")


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("größer")
    assert read_text(path, most=8) == "größer"
    with pytest.raises(ValueError, match="it has 8 bytes"):
        read_text(path, most=7)
    os.truncate(path, 2**40)  # of which the disk holds nothing
    with pytest.raises(ValueError, match=r"it has 1,099,511,627,776 bytes"):
        read_text(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "null", "{", "[" * 100_000, '{"a": ' * 100_000, "9" * 5000],
    ids=lambda text: f"{text[:6]}-{len(text)}",
)
def test_what_is_no_object_is_refused(text: str) -> None:
    assert json_object('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match=r"."):
        json_object(text)


def test_a_sentence_quotes_no_value_at_length() -> None:
    assert shown("x") == "'x'"
    assert len(shown("x" * 5000)) <= LONGEST
    assert shown("x" * 5000).endswith("xxx'")
