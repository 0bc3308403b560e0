"""The screen, drawn without a terminal."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import midway, title, trained
from rich.console import Console

from nmt_async.display.reports import MachinesReport
from nmt_async.display.screen import LEVELS, bar, buckets, render, share_out, sparkline
from nmt_async.display.state import DisplayState
from nmt_async.formatting import clock


def drawn(state: DisplayState, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, _environ={})
    console.print(render(state))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_screen_tells_the_run_its_figures_and_its_troubles() -> None:
    text = "\n".join(drawn(midway()))
    for part in (
        "demo", "6.56 M parameters", "hybrid, 2 pushes an update", "2 workers on cpu", " 50% of 1k", "4:10 left",
        "500", "50.6 M", "3.33e-04", "1.57", "2,602", "2,768", "2,022", "1.0000", "mean 0.49, max 1", "51%", "49%",
        "worker 0", "mean 4%", "cross-entropy", "2.0000", "7.39", "31.50", "54.25", "★ best", "stalled 1",
        "going on after update 0", "warning: the disk is almost full",
    ):  # fmt: skip
        assert part in text, part
    assert "█×" in text


@given(
    st.integers(40, 200), st.integers(4, 60), st.integers(1, 40),
    st.dictionaries(st.integers(0, 200), st.integers(1, 9), min_size=1, max_size=5),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_the_screen_stays_within_the_terminal(width: int, height: int, workers: int, ages: dict[int, int]) -> None:
    rows = drawn(midway(workers, ages), width, height)
    assert len(rows) < height
    assert max(map(len, rows)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (120, 40)])
def test_every_part_has_its_place_on_a_common_terminal(width: int, height: int) -> None:
    text = "\n".join(drawn(midway(), width, height))
    for part in ("staleness", "waiting for work", "validation", "stalled 1", "almost full", "loss"):
        assert part in text


def test_the_figures_stand_still_while_their_values_come() -> None:
    state = DisplayState().begun(title())
    before, after = drawn(state.progressed(0.0, 0)), drawn(state.progressed(0.1, 100).trained(trained(100)))
    for name in ("learning rate", "target tokens/s", "staleness", "loss"):
        assert [(row, line.index(name)) for row, line in enumerate(before) if name in line] == [
            (row, line.index(name)) for row, line in enumerate(after) if name in line
        ]


def test_a_run_that_has_not_begun_or_has_no_end_has_a_screen_too() -> None:
    assert "getting ready" in "\n".join(drawn(DisplayState()))
    assert "until stopped" in "\n".join(drawn(DisplayState().begun(title()).progressed(None, 3)))


def test_many_workers_are_those_that_wait_the_most_and_the_mean_of_the_others() -> None:
    text = "\n".join(drawn(midway(workers=16), 80, 40))
    assert "worker 15" in text
    assert "11 others" in text
    assert "worker 3" not in text


def of_machines(count: int, here: int = 0, width: int = 80, height: int = 24) -> list[str]:
    """The screen of a run that so many machines share; machine r has r + 1 parts of the tokens."""
    names = [f"machine {rank} (gpu{rank}.example.org)" for rank in range(count)]
    tokens = [1000 * (rank + 1) for rank in range(count)]
    report = replace(
        trained(500), seconds=10.0, stretch_tokens=sum(tokens), machine_tokens=tokens, machine_pushes=[5] * count,
        machine_waiting=[0.01 * rank for rank in range(count)], machine_staleness=[None, *[1.5] * (count - 1)],
    )  # fmt: skip
    shared = replace(title(), machines=MachinesReport(0, here, names, [2] * count))
    return drawn(midway().begun(shared).trained(report), width, height)


def test_each_machine_has_a_row() -> None:
    rows = of_machines(3, here=2)
    assert "hybrid, 2 pushes a machine · machine 2 (gpu2.example.org) of 3 with 6 workers" in rows[1]
    begin = next(number for number, row in enumerate(rows) if row.startswith("machine "))
    assert rows[begin].split() == ["machine", "target", "tokens/s", "share", "waiting", "staleness"]
    assert [row.split() for row in rows[begin + 1 : begin + 4]] == [
        ["machine", "0", "(gpu0.example.org)", "100", "17%", "0%", "–"],
        ["machine", "1", "(gpu1.example.org)", "200", "33%", "1%", "1.50"],
        ["machine", "2", "(gpu2.example.org)", "300", "50%", "2%", "1.50"],
    ]


def test_many_machines_are_the_first_and_the_others_together() -> None:
    rows = of_machines(40, height=50)
    assert "40 machines" in rows[1]
    (others,) = [row for row in rows if "33 others" in row]
    assert others.split()[2:5] == ["79,200", "97%", "23%"]


@given(st.integers(2, 300), st.integers(40, 200), st.integers(4, 60))
@settings(deadline=None, max_examples=30)
def test_machines_stay_within_the_terminal(count: int, width: int, height: int) -> None:
    rows = of_machines(count, 1, width, height)
    assert len(rows) < height
    assert max(map(len, rows)) <= width


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.9, "0:07"), (754, "12:34"), (3723, "1:02:03"), (86400 * 3 + 4, "3 d 0:00:04")]
)
def test_time_reads_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40)


@given(numbers, st.integers(0, 50))
def test_a_sparkline_has_one_mark_for_each_of_the_last_values(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= {*LEVELS, "×"}


def test_a_sparkline_spans_lowest_to_highest_and_marks_what_is_no_number() -> None:
    assert sparkline([9.0, 1.0, math.nan, 5.0, math.inf], 10) == "█▁×▅×"
    assert sparkline([2.0, 2.0], 10) == "▁▁"


@given(st.floats(-1, 2), st.integers(1, 60))
def test_a_bar_fills_its_width(share: float, width: int) -> None:
    filled, track = bar(share, width)
    assert len(filled) + len(track) == width
    assert (filled == "") == (share <= 0)
    assert (track == "") or share < 1


@given(st.dictionaries(st.integers(0, 300), st.integers(1, 1000), min_size=1), st.integers(1, 8))
def test_a_histogram_keeps_every_count_in_the_rows_it_has(counts: dict[int, int], rows: int) -> None:
    named = buckets(counts, rows)
    assert 1 <= len(named) <= rows
    assert sum(share for _, share in named) == pytest.approx(1)


def test_a_histogram_names_its_rows() -> None:
    assert buckets({0: 1, 3: 3}, 4) == [("0", 0.25), ("1", 0), ("2", 0), ("3", 0.75)]
    assert [label for label, _ in buckets({0: 1, 3: 3}, 2)] == ["0-1", "2-3"]
    assert buckets({}, 3) == []


@given(st.integers(-5, 40), st.lists(st.integers(0, 10), max_size=5))
def test_no_part_gets_more_rows_than_it_wants_and_none_is_left_over(spare: int, wanted: list[int]) -> None:
    given_rows = share_out(spare, wanted)
    assert all(0 <= have <= want for have, want in zip(given_rows, wanted, strict=True))
    assert sum(given_rows) == min(max(spare, 0), sum(wanted))
