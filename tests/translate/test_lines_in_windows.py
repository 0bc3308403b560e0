from __future__ import annotations

import queue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.translate.lines import one_line, windows


@given(st.text())
def test_one_line_is_one_line_for_everybody(text):
    assert len(one_line(text).splitlines()) <= 1
    assert "\n" not in one_line(text)


@given(st.lists(st.integers(), max_size=30), st.integers(1, 7))
def test_windows_hold_all_lines_in_order(lines, size):
    for given_lines, at_hand in ((lines, False), (iter(lines), False), (iter(lines), True)):
        found = list(windows(given_lines, size, at_hand))
        assert [line for window in found for line in window] == lines
        assert all(1 <= len(window) <= size for window in found)
        assert not at_hand or all(len(window) == size for window in found[:-1])


def test_a_window_does_not_wait_for_lines_that_are_not_there():
    typed: queue.Queue[str | None] = queue.Queue()
    groups = windows(iter(typed.get, None), 100)
    typed.put("one")
    assert next(groups) == ["one"]
    typed.put("two")
    assert next(groups) == ["two"]
    typed.put(None)
    assert list(groups) == []


def test_a_problem_while_reading_reaches_the_reader():
    def lines():
        yield "one"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(windows(lines(), 1))


def test_reading_ends_when_nobody_takes_lines_any_more():
    ended = queue.Queue()

    def lines():
        try:
            while True:
                yield "line"
        finally:
            ended.put(True)

    groups = windows(lines(), 2)
    next(groups)
    groups.close()
    assert ended.get(timeout=30)
