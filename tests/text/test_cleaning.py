from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.text.cleaning import (
    REASONS,
    Rules,
    clean,
    judge_lengths,
    judge_text,
    mark_first_occurrences,
    pair_hashes,
)
from nmt_async.text.line_blocks import PairBlock, lines_of, text_of

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


LINES = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
TEXTS = st.lists(st.tuples(LINES, LINES), min_size=1, max_size=30)


def block_of(pairs: list[tuple[bytes, bytes]]) -> PairBlock:
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    return PairBlock(text_of(sources), text_of(targets), len(pairs))


ODD = [b"", b" ", b"\xc2\xa0", b"\xe3\x80\x80", b"\xe2\x80\x83", b"caf\xe9", b"\x07", b"\xc2\x85", b"\xc2\x9fx",
       b"x\x7f", b"\xc2", "\u3042".encode(), "\u00a3".encode(), b"long" * 1100, b"a\tb"]  # fmt: skip


@given(
    pairs=st.lists(st.tuples(*[LINES | st.sampled_from(ODD)] * 2), min_size=1, max_size=30),
    rules=st.builds(Rules, st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0, 1, 256])),
)
def test_a_block_is_cleaned_as_its_pairs_are_one_by_one(pairs: list[tuple[bytes, bytes]], rules: Rules) -> None:
    block, removed = clean(block_of(pairs), rules)
    verdicts = [judge_text(*pair, rules) for pair in pairs]
    kept = [verdict for verdict in verdicts if not isinstance(verdict, str)]
    assert lines_of(block.source) == [source.encode() for source, _ in kept]
    assert lines_of(block.target) == [target.encode() for _, target in kept]
    assert block.pairs == len(kept)
    assert {reason: removed[reason] for reason in REASONS} == {reason: verdicts.count(reason) for reason in REASONS}


@given(pairs=TEXTS, others=TEXTS)
def test_a_pair_has_the_same_hash_wherever_it_stands_and_no_other_pair_has_it(
    pairs: list[tuple[bytes, bytes]], others: list[tuple[bytes, bytes]]
) -> None:
    hashes = dict(zip(pairs, pair_hashes(block_of(pairs)).tolist(), strict=True))
    for pair, found in zip(others + pairs, pair_hashes(block_of(others + pairs)).tolist(), strict=True):
        assert hashes.setdefault(pair, found) == found
    assert len(set(hashes.values())) == len(hashes)


def test_pairs_are_told_apart_by_both_sides_and_by_each_byte() -> None:
    pairs = [
        (b"a", b"b"),
        (b"b", b"a"),
        (b"a b", b""),
        (b"a", b"b "),
        (b"", b"a b"),
        (b"", b""),
        (b"\0", b""),
        (b"", b"\0"),
    ]
    text = bytes(range(11, 111))
    pairs += [(text[:place] + b"x" + text[place:], b"") for place in range(len(text))]
    pairs += [(text[8:16] + text[:8], b""), (text[:16], b""), (b"", text[:16]), (text[:8], text[8:16])]
    assert len(set(pair_hashes(block_of(pairs)).tolist())) == len(set(pairs))
