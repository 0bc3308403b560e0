"""Sparklines, bars, histograms and the sharing out of rows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.display.strokes import LEVELS, bar, buckets, share_out, sparkline

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
