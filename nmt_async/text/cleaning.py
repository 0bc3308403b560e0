"""Which sentence pairs are left out of training, and why: pure functions of the text and of its lengths in subwords."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nmt_async.text.line_blocks import NEWLINE, PairBlock, kept_lines, line_ends, line_hashes, lines_of, text_of

Reason = Literal["invalid_utf8", "control_characters", "empty", "duplicate", "too_long", "length_ratio"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a pair can be removed, in the order in which it is asked; a pair counts for the first that holds."""

RATIO_APPLIES_FROM = 10
"""Subwords of the longer side from which on the ratio is asked: below, "OK" may well be five words elsewhere."""

MOST_BYTES_A_SUBWORD = 4096
"""No vocabulary has one so long: a line with more of them than may be is not even encoded."""

# C0 but the tab, DEL and C1, which text decoded with the wrong character set is full of.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_DELETE = 0x7F
_C1 = 0xC2, 0x9F
"""In UTF-8 they begin with the one byte, and go up to the other in the second."""
_BEGINS_OF_SPACES = np.array([0xC285, 0xC2A0, 0xE19A, 0xE280, 0xE281, 0xE380], np.uint16)
"""The first two bytes, in UTF-8, of all white space that is not ASCII; other characters begin so, too."""


@dataclass(frozen=True)
class Rules:
    """What is removed; a limit of 0 is no limit.

    Attributes:
        max_length: subwords of either side, counting the end mark.
        max_length_ratio: of the longer side's subwords to the shorter's, asked from `RATIO_APPLIES_FROM` on.
    """

    invalid_utf8: bool = True
    control_characters: bool = True
    empty: bool = True
    max_length: int = 256
    max_length_ratio: float = 4.0


def judge_text(source: bytes, target: bytes, rules: Rules) -> tuple[str, str] | Reason:
    """The pair as text, or why it is left out. Bytes that are not UTF-8 become U+FFFD where they are not a reason."""
    try:
        source_text, target_text = source.decode(), target.decode()
    except UnicodeDecodeError:
        if rules.invalid_utf8:
            return "invalid_utf8"
        source_text, target_text = source.decode(errors="replace"), target.decode(errors="replace")
    if rules.control_characters and (_CONTROL.search(source_text) or _CONTROL.search(target_text)):
        return "control_characters"
    if rules.empty and not (source_text.strip() and target_text.strip()):
        return "empty"
    if rules.max_length and max(len(source), len(target)) > rules.max_length * MOST_BYTES_A_SUBWORD:
        return "too_long"
    return source_text, target_text


def doubtful(text: bytes, rules: Rules) -> NDArray[np.bool_]:
    """(lines,) which lines of ``text`` a rule of `judge_text` might hold for; for the others, none does.

    It looks at bytes, all lines at once, and says of most lines of ordinary text that nothing is wrong with them.
    """
    codes, ends = np.frombuffer(text, np.uint8), line_ends(text)
    begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    first = codes[begins]
    two = first.astype(np.uint16) << 8 | codes[np.minimum(begins + 1, len(codes) - 1)]
    found: NDArray[np.bool_] = (first <= ord(" ")) | (first == _DELETE) | np.isin(two, _BEGINS_OF_SPACES)
    if rules.max_length:
        found |= ends - begins > rules.max_length * MOST_BYTES_A_SUBWORD
    strange = (codes < ord(" ")) & (codes != ord("\t")) & (codes != NEWLINE) | (codes == _DELETE)
    strange[:-1] |= (codes[:-1] == _C1[0]) & (codes[1:] <= _C1[1])
    try:
        text.decode()
    except UnicodeDecodeError:
        strange |= codes > _DELETE
    found[np.searchsorted(ends, np.flatnonzero(strange))] = True
    return found


def clean(block: PairBlock, rules: Rules) -> tuple[PairBlock, Counter[Reason]]:
    """The pairs of ``block`` that `judge_text` leaves in, and how many it leaves out for which reason."""
    removed: Counter[Reason] = Counter()
    rows = np.flatnonzero(doubtful(block.source, rules) | doubtful(block.target, rules)).tolist()
    if not rows:
        return block, removed
    sources, targets = lines_of(block.source), lines_of(block.target)
    keep = np.ones(block.pairs, np.bool_)
    for row in rows:
        verdict = judge_text(sources[row], targets[row], rules)
        if isinstance(verdict, str):
            removed[verdict] += 1
            keep[row] = False
        else:
            sources[row], targets[row] = verdict[0].encode(), verdict[1].encode()
    source, target = (kept_lines(text_of(lines), keep) for lines in (sources, targets))
    return PairBlock(source, target, int(keep.sum())), removed


def judge_lengths(
    source_lengths: NDArray[np.int64],
    target_lengths: NDArray[np.int64],
    rules: Rules,
    tags: NDArray[np.int64] | int = 0,
) -> dict[Reason, NDArray[np.bool_]]:
    """For each reason that lengths can give, which pairs it removes; a pair is removed for one reason only.

    Args:
        source_lengths, target_lengths: (pairs,), subwords counting the end mark. A sentence of the end mark alone is
            text that the vocabulary's normalisation left nothing of, such as a lone zero-width space.
        tags: (pairs,), how many of the source's are a tag before its text, which no translation has.
    """
    longest = np.maximum(source_lengths, target_lengths)
    text_lengths = np.maximum(source_lengths - tags, 1)
    shorter = np.minimum(text_lengths, target_lengths) - 1
    longer = np.maximum(text_lengths, target_lengths) - 1
    nothing = np.zeros(len(shorter), dtype=np.bool_)
    empty = shorter == 0 if rules.empty else nothing
    too_long = ~empty & (longest > rules.max_length) if rules.max_length else nothing
    uneven = nothing
    if rules.max_length_ratio:
        uneven = (longer > rules.max_length_ratio * shorter) & (longer >= RATIO_APPLIES_FROM) & ~empty & ~too_long
    return {"empty": empty, "too_long": too_long, "length_ratio": uneven}


def pair_hashes(block: PairBlock) -> NDArray[np.uint64]:
    """(pairs,) eight bytes that stand for each pair, of which there is one at least.

    Among a billion pairs, two different ones share theirs with chance 0.03.
    """
    return line_hashes(block.source, 1) + line_hashes(block.target, 1 << 32)


def mark_first_occurrences(hashes: NDArray[np.uint64], keep: NDArray[np.bool_], part: int = 1 << 20) -> int:
    """Sets ``keep`` (pairs,) where a hash stands for the first time; returns how many do not.

    Hashes are looked at in shares of about ``part``, each in a pass of its own over the array, so memory stays constant
    however many there are: both arrays may be memory-mapped.
    """
    shares = -(-len(hashes) // part)
    duplicates = 0
    for share in range(shares):
        indexes = np.concatenate([
            start + np.flatnonzero(hashes[start : start + part] % np.uint64(shares) == share)
            for start in range(0, len(hashes), part)
        ])  # fmt: skip
        _, first = np.unique(hashes[indexes], return_index=True)
        keep[indexes] = False
        keep[indexes[first]] = True
        duplicates += len(indexes) - len(first)
    return duplicates
