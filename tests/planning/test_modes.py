"""What people type to name modes and numbers of workers."""

from __future__ import annotations

import re

import pytest

from nmt_async.errors import UserError
from nmt_async.planning.modes import mode_name, mode_options, modes_named, workers_named
from nmt_async.sync.rules import Asynchronous, Hybrid, Synchronous


def test_w_is_the_number_of_workers() -> None:
    hybrid, sync, local, plain = modes_named("hybrid:W, sync:2,local:W,hybrid")
    assert (hybrid.rule(7), plain.rule(7)) == (Hybrid(7), Hybrid(7))
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


def test_what_stands_behind_a_mode_says_which_pushes_count_and_who_waits() -> None:
    oldest, ring, bounded, local = modes_named(
        "hybrid:W+oldest:0, async+oldest:3+restart,hybrid+staleness:2+local:3,async+staleness:1+local:W"
    )
    assert oldest.rule(5) == Hybrid(5, oldest_push=0)
    fastest, balanced = modes_named("sync:2+fastest:3+restart,sync:4+balance")
    assert fastest.rule(5) == Synchronous(5, 2, fastest=3, restart=True)
    assert fastest.rule(1) == Synchronous(1, 2), "of two pushes the fastest three are all"
    assert balanced.rule(5) == Synchronous(5, 4, balance=True)
    assert ring.rule(5) == Asynchronous(oldest_push=3, restart=True)
    assert (bounded.rule(5), bounded.parts(5)) == (Hybrid(5, max_staleness=2), 3)
    assert (local.rule(5), local.parts(5)) == (Asynchronous(max_staleness=1), 5)


@pytest.mark.parametrize("name", [
    "sync", "sync:2", "hybrid:4", "async", "local:3", "hybrid:4+local:2", "hybrid:4+oldest:0", "async+oldest:3+restart",
    "adaptive:3", "adaptive:3+first:2+oldest:1+restart+local:2", "sync+fastest:2",
    "sync:2+fastest:5+restart+balance", "sync:3+balance",
    "async+oldest:3+local:2", "hybrid:4+staleness:2", "hybrid:4+oldest:1+restart+local:2",
])  # fmt: skip
def test_the_options_that_a_name_stands_for_have_that_name(name: str) -> None:
    assert mode_name({"workers": 3, **mode_options(name)}) == name


@pytest.mark.parametrize(("text", "why"), [
    ("sync+oldest:1", "oldest push means nothing in sync; it is for async and hybrid"),
    ("hybrid:2+oldest:1+staleness:1", "none is refused; give one of the two bounds"),
    ("hybrid:2+balance", "balance means nothing in hybrid; it is for sync"),
    ("adaptive:2", "depends on the loss, which a simulation of time does not know"),
    ("sync+restart", "each push is waited for"),
    ("async+restart", "no push is too old without a bound"),
])  # fmt: skip
def test_what_does_not_fit_a_mode_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"--modes: .{re.escape(text)}.: .*{why}"):
        modes_named(text)


@pytest.mark.parametrize("text", ["hybrid:2+oldest", "hybrid:2+oldest:1+oldest:2", "hybrid:2+sooner:1", "async+local:0",
                                  "local:2+local:2", "async+local:2"])  # fmt: skip
def test_what_stands_behind_a_mode_and_is_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is not a mode; give .*\+oldest:K, \+staleness:K"):
        modes_named(text)


@pytest.mark.parametrize("text", ["", "async:4", "hybrid:0", "local", "hybrid:V", "async@0.1"])
def test_what_is_no_mode_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^--modes"):
        modes_named(text)
