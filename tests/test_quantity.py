"""Amounts as typed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.quantity import Quantity, parse_quantity

UNITS = ("updates", "tokens", "epochs", "hours", "minutes")


@pytest.mark.parametrize(
    ("typed", "amount", "unit"),
    [("20k", 20_000, "updates"), ("2e", 2, "epochs"), ("1Gt", 10**9, "tokens"), ("0.5h", 0.5, "hours"),
     ("500u", 500, "updates"), ("10min", 10, "minutes"), ("1.5Mt", 1_500_000, "tokens")],
)  # fmt: skip
def test_an_amount_is_read_as_marian_reads_it(typed, amount, unit):
    assert parse_quantity(typed, UNITS) == Quantity(amount, unit)


@given(st.floats(0, 1e12), st.sampled_from(UNITS))
def test_what_is_written_is_read_back(amount, unit):
    quantity = Quantity(amount, unit)
    assert parse_quantity(str(quantity), UNITS) == quantity


@pytest.mark.parametrize("typed", ["", "k", "ten", "1x", "-3", "2ee"])
def test_what_is_no_amount_is_refused(typed):
    with pytest.raises(UserError, match="is not an amount"):
        parse_quantity(typed)


def test_a_refusal_gives_an_example_of_each_unit_that_can_be_counted_here():
    with pytest.raises(UserError, match=re.escape("such as 20k (updates), 3h (hours), 30min (minutes).")):
        parse_quantity("40s", ("updates", "hours", "minutes"))


def test_a_unit_that_cannot_be_counted_here_is_refused():
    with pytest.raises(UserError, match="counts hours; here only updates"):
        parse_quantity("1h", ("updates",))
