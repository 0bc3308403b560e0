"""A result is a small file of numbers that reads back as it was written, or says that it is damaged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import made

from nmt_async.errors import UserError
from nmt_async.study.result import Point, Result, TrainPoint
from nmt_async.study.setting import Setting

# Six significant digits are kept, so numbers are made of six.
numbers = st.integers(-999_999, 999_999).map(lambda value: float(f"{value / 1000:.6g}"))
counts = st.integers(0, 10**12)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shares = st.lists(numbers, max_size=4).map(tuple)
points = st.builds(
    Point, counts, counts, numbers, numbers, numbers, st.none() | numbers, st.none() | numbers,
    st.lists(numbers, max_size=5).map(tuple),
)  # fmt: skip
stretches = st.builds(
    TrainPoint, counts, counts, numbers, numbers, numbers, numbers, numbers, numbers, numbers, shares
)  # fmt: skip
options = st.dictionaries(words, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words)
results = st.builds(
    Result,
    setting=st.builds(Setting, words, st.integers(0, 2**63 - 1), options), command=words, folder=words, data=words,
    cluster=words, profile=words, workers=counts, parameters=counts,
    environment=st.dictionaries(words, words | st.integers()), updates=counts, tokens=counts, seconds=numbers,
    wall_seconds=st.none() | numbers, effective_batch=numbers, tokens_per_second=numbers,
    staleness=st.dictionaries(st.integers(0, 99), counts), waiting=shares,
    points=st.lists(points, max_size=3).map(tuple), stretches=st.lists(stretches, max_size=2).map(tuple),
    diverged=words, failed=words,
)  # fmt: skip
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@one_folder
@given(results)
def test_a_result_reads_back_as_it_was_written(tmp_path: Path, result: Result) -> None:
    path = tmp_path / "result.json"
    result.write(path)
    assert Result.read(path) == result
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_setting_keeps_every_digit_so_that_a_study_finds_it_again(tmp_path: Path) -> None:
    result = replace(made(), setting=Setting("sync", 1, {"learn-rate": 0.00012345678901}))
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json").setting == result.setting


def test_a_run_that_diverged_can_be_kept(tmp_path: Path) -> None:
    result = made(curve=lambda million: math.nan if million > 2 else math.inf, diverged="the loss is not finite")
    result.write(tmp_path / "result.json")
    back = Result.read(tmp_path / "result.json")
    assert math.isnan(back.points[-1].cross_entropy)
    assert math.isinf(back.points[0].cross_entropy)


def test_results_of_the_first_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    made().write(path)
    values = json.loads(path.read_text())
    del values["failed"]
    values |= {"format": 1, "processor_seconds": values.pop("wall_seconds")}
    path.write_text(json.dumps(values))
    back = Result.read(path)
    assert (back.wall_seconds, back.failed) == (made().wall_seconds, "")


def test_staleness_is_averaged_over_pushes() -> None:
    assert made(staleness={0: 1, 3: 3}).staleness_mean == pytest.approx(2.25)
    assert replace(made(), staleness={}).staleness_mean == 0


def test_the_last_validation_is_the_last_point() -> None:
    assert made().last == made().points[-1]
    assert made(tokens=()).last is None


def test_a_result_is_small(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    made(tokens=range(100_000, 4_000_001, 100_000)).write(path)
    assert path.stat().st_size < 100_000


def refusal(path: Path) -> str:
    """What reading the result says against it; empty if nothing."""
    try:
        Result.read(path)
    except UserError as error:
        return str(error)
    return ""


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in what JSON made."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, item in below for place in places(item, (*here, key)))]


@one_folder
@given(st.data())
def test_a_value_of_another_kind_is_damage_and_not_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "result.json"
    made(tokens=(500_000, 1_000_000), draws=2).write(path)
    values = json.loads(path.read_text())
    *above, key = data.draw(st.sampled_from([place for place in places(values) if place]))
    parent = values
    for step in above:
        parent = parent[step]
    damage = data.draw(st.sampled_from(["gone", None, "x", [], {}, [[1]], {"x": 1}, True, "1", -1.5, 10**400]))
    if damage == "gone":
        del parent[key]
    else:
        parent[key] = damage
    path.write_text(json.dumps(values))
    problem = refusal(path)
    assert not problem or str(path) in problem
    if not problem:
        read = Result.read(path)
        read.write(path)
        assert Result.read(path) == read


@pytest.mark.parametrize(
    ("place", "damage"),
    [(("points", 0, "cross_entropy"), "low"), (("points", 0, "tokens"), 1.5), (("points", 0, "resampled"), [None]),
     (("staleness",), {"x": 1}), (("seconds",), True), (("setting", "seed"), "1"), (("data",), None),
     (("stretches", 0, "waiting"), 0.5), (("points",), {}), (("colour",), 1), (("setting",), None)],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, place: tuple[Any, ...], damage: Any) -> None:
    path = tmp_path / "result.json"
    made(tokens=(500_000,), draws=2).write(path)
    values = json.loads(path.read_text())
    *above, key = place
    parent = values
    for step in above:
        parent = parent[step]
    parent[key] = damage
    path.write_text(json.dumps(values))
    assert "cannot be read as the result of a setting" in refusal(path)


@one_folder
@given(st.data())
def test_torn_and_flipped_bytes_are_damage_and_not_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "result.json"
    made(tokens=(500_000,), draws=2).write(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content = content[:at] + data.draw(st.binary(max_size=3)) + content[at + data.draw(st.integers(0, 50)) :]
    path.write_bytes(content)
    problem = refusal(path)
    assert not problem or str(path) in problem


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}', b"\xff\xfe", b"[" * 100_000,
     b'{"format":' + b"9" * 5000],
    ids=["empty", "null", "list", "nothing", "newer", "format only", "not text", "deep", "long"],
)  # fmt: skip
def test_another_file_is_no_result(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="result"):
        Result.read(path)


def test_a_missing_file_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Result.read(tmp_path / "none.json")
