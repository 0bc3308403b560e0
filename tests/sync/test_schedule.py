"""The learning rate at any point of training."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.quantity import Quantity
from nmt_async.sync.schedule import DECAYS, Progress, Schedule

UNITS = ("updates", "tokens", "epochs")


def at(updates: int, tokens_each: int = 1000, updates_an_epoch: int = 50) -> Progress:
    """Training after so many updates of one size."""
    return Progress(updates, updates * tokens_each, updates / updates_an_epoch)


def span(updates: int, unit: str) -> Quantity:
    """The same stretch of training in any unit."""
    return Quantity(at(updates).amount(unit), unit)


@given(decay=st.sampled_from(DECAYS), unit=st.sampled_from(UNITS), end_unit=st.sampled_from(UNITS),
       warmup=st.integers(1, 300), beyond=st.integers(1, 300), floor=st.floats(0, 0.5))  # fmt: skip
def test_the_rate_rises_to_the_peak_and_falls_without_a_jump(
    decay: str, unit: str, end_unit: str, warmup: int, beyond: int, floor: float
) -> None:
    schedule = Schedule(0.01, span(warmup, unit), decay, span(warmup + beyond, end_unit), floor)
    rising = [schedule.rate(at(update)) for update in range(1, warmup + 1)]
    assert rising == pytest.approx([0.01 * update / warmup for update in range(1, warmup + 1)])
    falling = [schedule.rate(at(update)) for update in range(warmup, warmup + beyond + 50)]
    assert falling[0] == pytest.approx(0.01)
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(falling))
    assert min(falling) >= 0.01 * floor * (1 - 1e-9)
    # The steepest is half a cosine in its middle: pi / 2 of the whole way times a step's share of it.
    steepest = {"linear": 1 / beyond, "cosine": math.pi / 2 / beyond, "inv-sqrt": 0.5 / warmup, "none": 0.0}[decay]
    assert all(earlier - later <= 0.01 * steepest * 1.01 + 1e-12 for earlier, later in itertools.pairwise(falling))


@pytest.mark.parametrize("unit", UNITS)
def test_linear_and_cosine_arrive_at_the_floor_at_their_end_and_stay(unit: str) -> None:
    for decay in ("linear", "cosine"):
        schedule = Schedule(1.0, span(10, "updates"), decay, span(110, unit), 0.1)
        assert schedule.rate(at(60)) == pytest.approx(0.55)
        assert schedule.rate(at(110)) == schedule.rate(at(5000)) == pytest.approx(0.1)


def test_inverse_square_root_is_that_of_the_transformer_paper() -> None:
    width, warmup = 512, 4000
    schedule = Schedule(width**-0.5 * warmup**-0.5, Quantity(warmup, "updates"), "inv-sqrt")
    for update in (1, 17, 3999, 4000, 4001, 100_000):
        paper = width**-0.5 * min(update**-0.5, update * warmup**-1.5)
        assert schedule.rate(Progress(update)) == pytest.approx(paper)


def test_without_warmup_the_rate_begins_at_the_peak() -> None:
    for decay in DECAYS:
        schedule = Schedule(0.5, Quantity(0, "updates"), decay, Quantity(10_000, "updates"))
        assert schedule.rate(at(1)) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("warmup", [0, 30])
def test_inverse_square_root_may_begin_where_it_is_told(warmup: int, unit: str) -> None:
    """As Marian's ``--lr-warmup`` and ``--lr-decay-inv-sqrt``: two factors that know nothing of each other."""
    schedule = Schedule(0.5, span(warmup, "updates"), "inv-sqrt", floor=0.1, start=span(100, unit))
    for update in (1, 29, 30, 99, 100, 400, 10_000, 1_000_000):
        rising, falling = min(1.0, update / warmup) if warmup else 1.0, min(1.0, math.sqrt(100 / update))
        assert schedule.rate(at(update)) == pytest.approx(0.5 * rising * max(falling, 0.1))


def test_a_start_at_the_end_of_warmup_changes_nothing() -> None:
    span_of = Quantity(30, "updates")
    told, untold = (Schedule(0.5, span_of, "inv-sqrt", start=start) for start in (span_of, None))
    assert [told.rate(at(update)) for update in range(1, 200)] == [untold.rate(at(update)) for update in range(1, 200)]


def test_a_warmup_longer_than_the_whole_decay_ends_at_the_floor() -> None:
    schedule = Schedule(1.0, Quantity(100, "updates"), "linear", Quantity(50, "updates"), 0.2)
    assert [schedule.rate(at(update)) for update in (50, 100, 101)] == pytest.approx([0.5, 0.2, 0.2])


def test_a_schedule_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'step' is not one of"):
        Schedule(1.0, Quantity(1, "updates"), "step")
    with pytest.raises(ValueError, match="needs an end"):
        Schedule(1.0, Quantity(1, "updates"), "cosine")
