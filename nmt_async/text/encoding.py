"""A split from text to token stores: blocks of a spool are encoded in threads, and written in their order.

Threads suffice: SentencePiece works outside Python's lock, and so does most of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.text.cleaning import REASONS, Reason, Rules, judge_lengths
from nmt_async.text.spool import Spool, StoredBlock, Tally, in_threads
from nmt_async.text.token_store import StoreWriter
from nmt_async.text.vocabulary import UNKNOWN, Vocabulary


@dataclass(frozen=True)
class _EncodedSide:
    """One side of a block: subword indexes one after another, (sentences,) lengths, and how many are ``<unk>``."""

    ids: NDArray[np.unsignedinteger]
    lengths: NDArray[np.int64]
    unknown: int


@dataclass(frozen=True)
class _EncodedBlock:
    """What a block became.

    Attributes:
        source, target: the pairs that are kept.
        lengths: (2, pairs), of all pairs.
        keep: (pairs,), which are kept.
        removed: how many are not, by reason.
    """

    source: _EncodedSide
    target: _EncodedSide
    lengths: NDArray[np.int64]
    keep: NDArray[np.bool_]
    removed: dict[Reason, int]


def encode_split(
    spool: Spool, path: Path, source: Vocabulary, target: Vocabulary, rules: Rules | None, threads: int,
    report: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Writes the stores ``path.source`` and ``path.target``; pairs that ``rules`` remove by length count in ``spool``.

    Raises:
        UserError: a tag is no subword of the source vocabulary.

    Returns:
        The split's counts as its manifest has them: pairs ``read``, ``removed`` by reason and ``kept``, and for each
        side its ``tokens`` (with end marks) and how many of them are ``unknown``.
    """
    unknown = [0, 0]
    lines = 0
    tags = np.array([len(_tag(source, tally)) for tally in spool.corpora])
    ends = np.cumsum([tally.kept for tally in spool.corpora])

    def corpora_of(begin: int, count: int) -> NDArray[np.int64]:
        """(count,) of which corpus each pair is, from pair ``begin`` on."""
        return np.searchsorted(ends, np.arange(begin, begin + count), side="right")

    def numbered() -> Iterator[tuple[StoredBlock, NDArray[np.int64]]]:
        begin = 0
        for block in spool.blocks():
            kept = block.kept
            yield block, corpora_of(begin, kept)
            begin += kept

    def encode(item: tuple[StoredBlock, NDArray[np.int64]]) -> tuple[_EncodedBlock, NDArray[np.int64]]:
        block, of = item
        return _encoded(block, source, target, rules, tags[of]), of

    with ExitStack() as stack:
        writers = [
            stack.enter_context(StoreWriter(path.with_name(f"{path.name}.{side}"), vocabulary.size))
            for side, vocabulary in (("source", source), ("target", target))
        ]
        step = stack.enter_context(report.stage(f"encoding {path.name}", spool.kept))
        for made, of in in_threads(encode, numbered(), threads):
            lines += len(of)
            spool.removed.update(made.removed)
            _count(spool.corpora, of, made.lengths, made.keep)
            for index, side in enumerate((made.source, made.target)):
                writers[index].extend(side.ids, side.lengths)
                unknown[index] += side.unknown
            step(lines, lines)
    counts: dict[str, Any] = {"read": spool.read, "kept": spool.kept}
    if rules is not None:
        counts["removed"] = {reason: spool.removed[reason] for reason in REASONS}
    for side_name, writer, count in zip(("source", "target"), writers, unknown, strict=True):
        counts[side_name] = {"tokens": writer.tokens, "unknown": count}
    return counts


def _encoded(
    block: StoredBlock, source: Vocabulary, target: Vocabulary, rules: Rules | None, tags: NDArray[np.int64]
) -> _EncodedBlock:  # fmt: skip
    """The block as subwords; ``tags`` are (pairs,), how many of the source's are a tag."""
    sides = [
        vocabulary.encode_flat(block.side(name).decode().split("\n")[:-1])
        for name, vocabulary in (("source", source), ("target", target))
    ]
    lengths = np.stack([lengths for _, lengths in sides])
    keep = np.ones(block.kept, np.bool_)
    removed: dict[Reason, int] = {}
    if rules is not None:
        for reason, mask in judge_lengths(lengths[0], lengths[1], rules, tags).items():
            removed[reason] = int(mask.sum())
            keep &= ~mask
    return _EncodedBlock(_kept_side(*sides[0], keep), _kept_side(*sides[1], keep), lengths, keep, removed)


def _kept_side(
    ids: NDArray[np.unsignedinteger], lengths: NDArray[np.int64], keep: NDArray[np.bool_]
) -> _EncodedSide:  # fmt: skip
    if not keep.all():
        ids, lengths = ids[np.repeat(keep, lengths)], lengths[keep]
    return _EncodedSide(ids, lengths, int(np.count_nonzero(ids == UNKNOWN)))


def _tag(source: Vocabulary, tally: Tally) -> list[int]:
    """The subwords of a corpus's tag; none if it has none."""
    try:
        return source.tag(tally.tag) if tally.tag else []
    except UserError as error:
        raise UserError(f"--corpora: the tag of {tally.name}: {error}") from None


def _count(tallies: list[Tally], of: NDArray[Any], lengths: NDArray[np.int64], keep: NDArray[np.bool_]) -> None:
    """Adds encoded pairs to what their corpora ``of`` (pairs,) came to; those that are not kept leave them."""
    for number in np.unique(of):
        tally, here = tallies[number], of == number
        tally.kept -= int((here & ~keep).sum())
        tally.source_tokens += int(lengths[0][here & keep].sum())
        tally.target_tokens += int(lengths[1][here & keep].sum())
