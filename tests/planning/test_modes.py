"""What people type to name modes and numbers of workers."""

from __future__ import annotations

import pytest

from nmt_async.errors import UserError
from nmt_async.planning.modes import modes_named, workers_named
from nmt_async.sync.rules import Asynchronous, Hybrid, Synchronous


def test_w_is_the_number_of_workers() -> None:
    hybrid, sync, local, plain = modes_named("hybrid:W, sync:2,local:W,hybrid")
    assert (hybrid.rule(7), plain.rule(7)) == (Hybrid(7), Hybrid(14))
    assert sync.rule(7) == Synchronous(7, 2)
    assert (local.rule(7), local.parts(7)) == (Asynchronous(), 7)
    assert hybrid.parts(7) == 1


@pytest.mark.parametrize(
    ("text", "counts"), [("1..64", (1, 2, 4, 8, 16, 32, 64)), ("3..20,1", (1, 3, 6, 12, 20)), ("8,2,2", (2, 8))]
)
def test_a_range_doubles_and_ends_where_it_says(text: str, counts: tuple[int, ...]) -> None:
    assert workers_named(text) == counts


@pytest.mark.parametrize("text", ["0", "4..2", "x", "1..", "-3", "", "2..99999999"])
def test_what_is_no_number_of_workers_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^--workers"):
        workers_named(text)


@pytest.mark.parametrize("text", ["", "async:4", "hybrid:0", "local", "hybrid:V", "async@0.1"])
def test_what_is_no_mode_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^--modes"):
        modes_named(text)
