from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.text.cleaning import Rules, judge_lengths, judge_text, mark_first_occurrences, pair_hash

NO_RULES = Rules(invalid_utf8=False, control_characters=False, empty=False, max_length=0, max_length_ratio=0)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (b"caf\xe9", b"Kaffee", "invalid_utf8"),
        (b"bell\x07", b"Klingel", "control_characters"),
        ("wrong \x93quotes\x94".encode(), b"x", "control_characters"),
        (b"two\rlines", b"x", "control_characters"),
        (b"", b"x", "empty"),
        (b"x", " \u3000\t".encode(), "empty"),
    ],
)
def test_each_filter_on_text_can_be_switched_off(source: bytes, target: bytes, reason: str) -> None:
    assert judge_text(source, target, Rules()) == reason
    assert judge_text(target, source, Rules()) == reason
    assert judge_text(source, target, NO_RULES) == (source.decode(errors="replace"), target.decode(errors="replace"))


@pytest.mark.parametrize("text", ["a\ttab", "emoji 👩‍👩‍👧", "e\u0301", "right\u200fleft", "line\u2028separator"])
def test_ordinary_unicode_stays(text: str) -> None:
    assert judge_text(text.encode(), b"x", Rules()) == (text, "x")


def judge(source: int, target: int, rules: Rules) -> str | None:
    """The reason for one pair of sentences of so many subwords, end marks not counted."""
    masks = judge_lengths(np.array([source + 1]), np.array([target + 1]), rules)
    reasons = [reason for reason, mask in masks.items() if mask[0]]
    assert len(reasons) <= 1
    return reasons[0] if reasons else None


def test_length_limit_counts_the_end_mark() -> None:
    rules = Rules(max_length=20, max_length_ratio=0)
    assert judge(19, 5, rules) is None
    assert judge(20, 5, rules) == judge(5, 20, rules) == "too_long"


def test_length_ratio_asks_only_sentences_of_some_length() -> None:
    rules = Rules(max_length_ratio=3)
    assert judge(9, 1, rules) is None
    assert judge(10, 4, rules) is None
    assert judge(10, 3, rules) == judge(3, 10, rules) == "length_ratio"


def test_text_of_which_normalisation_leaves_nothing_counts_as_empty() -> None:
    assert judge(0, 50, Rules()) == "empty"
    assert judge(0, 50, NO_RULES) is None


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=30))
def test_no_rules_remove_nothing_and_rules_remove_once(lengths: list[tuple[int, int]]) -> None:
    source, target = np.array(lengths, np.int64).reshape(-1, 2).T
    assert not any(mask.any() for mask in judge_lengths(source, target, NO_RULES).values())
    reasons = np.array(list(judge_lengths(source, target, Rules()).values()))
    assert (reasons.sum(axis=0) <= 1).all()


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 70))
def test_first_occurrences_are_kept_whatever_the_share_held_in_memory(values: list[int], part: int) -> None:
    hashes = np.array(values, np.uint64)
    keep = np.zeros(len(values), np.bool_)
    duplicates = mark_first_occurrences(hashes, keep, part)
    assert keep.tolist() == [value not in values[:index] for index, value in enumerate(values)]
    assert duplicates == len(values) - len(set(values))


def test_pairs_are_told_apart_by_both_sides() -> None:
    hashes = {pair_hash(*pair) for pair in [("a", "b"), ("b", "a"), ("a b", ""), ("a", "b "), ("", "a b")]}
    assert len(hashes) == 5
