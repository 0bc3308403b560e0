"""How long silence lasts and when it is too long: a clock that stands still while nobody watches."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.process import watchdog
from nmt_async.process.watchdog import REMEMBERED, Silence


def test_a_suspended_job_has_not_been_silent() -> None:
    watch = Silence(600)
    for clock in (1000.0, 1000.5, 1001.0, 9000.0, 9000.5):
        watch.look(clock)
    assert watch.now == pytest.approx(1.5 + watchdog.LONGEST_STEP)


@given(timeout=st.floats(0.1, 1e5), seconds=st.lists(st.floats(0.001, 1e4), max_size=9), starting=st.booleans())
def test_it_is_spoken_of_before_it_is_too_long(timeout: float, seconds: list[float], starting: bool) -> None:
    watch = Silence(timeout)
    for batch in seconds:
        watch.computed(batch)
    slowest = max(seconds, default=0.0)
    assert watch.replaced_after(starting) >= max(timeout, 20 * slowest)
    assert watch.replaced_after(False) == max(timeout, 20 * slowest)
    assert watch.spoken_of_after(False) <= watch.replaced_after(False) / 2
    assert watch.spoken_of_after(starting) >= min(timeout / 2, watchdog.LEAST_SECONDS)
    assert watch.spoken_of_after(starting) >= 5 * slowest


def test_no_timeout_means_that_nobody_is_replaced_and_silence_is_still_spoken_of() -> None:
    watch = Silence(0)
    assert math.isinf(watch.replaced_after(False))
    assert math.isinf(watch.replaced_after(True))
    assert watch.spoken_of_after(False) == watchdog.LEAST_SECONDS


def test_one_slow_batch_is_forgotten_in_time() -> None:
    watch = Silence(600)
    watch.computed(3600.0)
    for _ in range(REMEMBERED - 1):
        watch.computed(1.0)
    assert watch.replaced_after(False) == 20 * 3600
    watch.computed(1.0)
    assert watch.replaced_after(False) == 600
