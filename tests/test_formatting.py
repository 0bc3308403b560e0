"""Numbers and tables as people read them."""

from __future__ import annotations

import math

import pytest

from nmt_async.formatting import about, clock, duration, markdown_table, number, percent, short_count


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(1234.5), "1,234"), (number(2.31, 3), "2.310"), (number(-0.1134, 3, signed=True), "−0.113"),
        (number(0.051, 2, signed=True), "+0.05"), (number(None, 2), "–"), (number(math.nan, 2), "nan"),
        (percent(0.754), "75 %"), (percent(-0.012, 1, signed=True), "−1.2 %"),
        (short_count(7432), "7,432"), (short_count(999_949), "999,949"), (short_count(999_950), "1.00 M"),
        (short_count(74_321_000), "74.3 M"), (short_count(7.4e9), "7.40 G"),
        (about(7951), "7,950"), (about(376.6), "377"), (about(0.7512), "0.75"),
        (clock(7.9), "0:07"), (clock(3723), "1:02:03"), (clock(273906), "3 d 4:05:06"),
        (duration(4.567), "4.57 s"), (duration(59.6), "1:00"), (duration(11110), "3:05:10"), (duration(None), "–"),
    ],
)  # fmt: skip
def test_a_number_is_written_one_way(said: str, expected: str) -> None:
    assert said == expected


def test_a_table_keeps_its_columns_whatever_is_in_its_cells() -> None:
    table = markdown_table(["a", "b|c"], [["1 | 2", "already \\| escaped"]], [False, True])
    assert table.splitlines() == ["| a | b\\|c |", "| --- | ---: |", "| 1 \\| 2 | already \\| escaped |"]
    assert markdown_table(["a"], []).splitlines() == ["| a |", "| --- |"]
