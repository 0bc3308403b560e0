"""Spooled text into token stores, on all cores.

Threads suffice: SentencePiece works outside Python's lock, and reading and writing go on meanwhile. Measured beside
processes on two busy cores, threads encoded about as many lines a second, and need no copies and cannot be orphaned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from nmt_async.text.batch import UNKNOWN
from nmt_async.text.cleaning import REASONS, Rules, judge_lengths
from nmt_async.text.progress import Progress
from nmt_async.text.spool import Spool
from nmt_async.text.store import StoreWriter
from nmt_async.text.vocabulary import Vocabulary


def encode_split(
    spool: Spool, path: Path, source: Vocabulary, target: Vocabulary, rules: Rules | None, threads: int,
    report: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Writes the stores ``path.source`` and ``path.target``; pairs that ``rules`` remove by length count in ``spool``.

    Returns:
        The split's counts as its manifest has them: pairs ``read``, ``removed`` by reason and ``kept``, and for each
        side its ``tokens`` (with end marks) and how many of them are ``unknown``.
    """
    vocabularies = source, target
    unknown = [0, 0]
    lines = 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(StoreWriter(path.with_name(f"{path.name}.{side}"), vocabulary.size))
            for side, vocabulary in zip(("source", "target"), vocabularies, strict=True)
        ]
        step = stack.enter_context(report.stage(f"encoding {path.name}", spool.kept))
        for sides in _encoded(spool.chunks(), source, target, threads):
            lines += len(sides[0])
            if rules is not None:
                lengths = [np.fromiter(map(len, side), np.int64, count=len(side)) for side in sides]
                keep = np.ones(len(sides[0]), np.bool_)
                for reason, mask in judge_lengths(lengths[0], lengths[1], rules).items():
                    spool.removed[reason] += int(mask.sum())
                    keep &= ~mask
                sides = [list(compress(side, keep)) for side in sides]
            for index, (writer, side) in enumerate(zip(writers, sides, strict=True)):
                writer.extend(side)
                unknown[index] += sum(sentence.count(UNKNOWN) for sentence in side)
            step(lines, lines)
    counts: dict[str, Any] = {"read": spool.read, "kept": spool.kept}
    if rules is not None:
        counts["removed"] = {reason: spool.removed[reason] for reason in REASONS}
    for side_name, writer, count in zip(("source", "target"), writers, unknown, strict=True):
        counts[side_name] = {"tokens": writer.tokens, "unknown": count}
    return counts


Sides = list[list[list[int]]]


def _encoded(
    chunks: Iterable[tuple[list[str], list[str]]], source: Vocabulary, target: Vocabulary, threads: int
) -> Iterator[Sides]:  # fmt: skip
    """Source and target of each chunk encoded, in the order of the chunks, of which few are in memory at once."""

    def encode(chunk: tuple[list[str], list[str]]) -> Sides:
        return [source.encode_lines(chunk[0]), target.encode_lines(chunk[1])]

    waiting: deque[Future[Sides]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="encoding") as pool:
        for chunk in chunks:
            waiting.append(pool.submit(encode, chunk))
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
