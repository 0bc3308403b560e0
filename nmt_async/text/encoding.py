"""Spooled text into token stores, on all cores: SentencePiece's threads work outside Python's lock."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain, compress
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
        for chunk in spool.chunks():
            sides = [v.encode_lines(texts, threads) for v, texts in zip(vocabularies, chunk, strict=True)]
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
                unknown[index] += sum(1 for token in chain.from_iterable(side) if token == UNKNOWN)
            step(lines, lines)
    counts: dict[str, Any] = {"read": spool.read, "kept": spool.kept}
    if rules is not None:
        counts["removed"] = {reason: spool.removed[reason] for reason in REASONS}
    for side_name, writer, count in zip(("source", "target"), writers, unknown, strict=True):
        counts[side_name] = {"tokens": writer.tokens, "unknown": count}
    return counts
