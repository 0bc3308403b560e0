"""A small English-German corpus from a grammar: real words and correct German, for the demo and the tests.

It asks of a model what German asks of one: articles and adjective endings by gender and case, numbers whose digits
change places, verbs that split or go last, the verb in second place after a fronted time. Every source sentence has
one translation in one style (*you* is *du*, the past is the Perfekt), so all of it can be learnt.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random

from nmt_async.demo_corpus.amounts import Pair, some
from nmt_async.demo_corpus.grammar import KINDS

SHORTEST, LONGEST = 3, 15
"""Bounds of a source sentence, in words."""

_MOST_REDRAWS = 20_000


def generate(count: int, seed: int) -> Iterator[Pair]:
    """``count`` pairs of an English and a German sentence, no English one twice; the same for the same ``seed``.

    Raises:
        ValueError: the grammar has not ``count`` different sentences (it has millions).
    """
    rng = Random(seed)
    seen: set[str] = set()
    redraws = 0
    while len(seen) < count:
        source, target = some(rng, KINDS)(rng)
        if source in seen or not SHORTEST <= source.count(" ") + 1 <= LONGEST:
            redraws += 1
            if redraws > _MOST_REDRAWS:
                raise ValueError(f"the grammar has no {count} different sentences")
            continue
        redraws = 0
        seen.add(source)
        yield source, target


def splits(sizes: Mapping[str, int], seed: int) -> dict[str, list[Pair]]:
    """Disjoint parts of one generated corpus; a part is fixed by the seed and by the sizes of those named before it."""
    pairs = generate(sum(sizes.values()), seed)
    return {name: list(islice(pairs, size)) for name, size in sizes.items()}


def write(folder: Path, sizes: Mapping[str, int], seed: int) -> None:
    """Writes ``NAME.en`` and ``NAME.de`` for each part, a sentence a line; none appears before all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    finished = []
    try:
        for name, pairs in splits(sizes, seed).items():
            for language, suffix in enumerate(("en", "de")):
                path = folder / f"{name}.{suffix}"
                beside = folder / f".{path.name}.{os.getpid()}"
                finished.append((beside, path))
                beside.write_text("".join(pair[language] + "\n" for pair in pairs), encoding="utf-8")
        for beside, path in finished:
            beside.replace(path)
    finally:
        for beside, _ in finished:
            beside.unlink(missing_ok=True)


def main() -> int:
    """``python -m nmt_async.demo_corpus.generate``: exit code 0, or 2 where the folder cannot be written."""
    parser = argparse.ArgumentParser(
        prog="nmt_async.demo_corpus.generate", description="Writes a generated English-German corpus."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.en, train.de, valid.en and so on")
    for name, size in (("train", 20_000), ("valid", 500), ("test", 500)):
        parser.add_argument(f"--{name}", type=int, default=size, help=f"sentence pairs of {name} (default: {size})")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another corpus (default: 1)")
    typed = parser.parse_args()
    # The test part comes first, so that it stays the same when more is asked to train on.
    sizes = {"test": typed.test, "valid": typed.valid, "train": typed.train}
    for name, size in sizes.items():
        if not 1 <= size <= 1_000_000:
            parser.error(f"--{name}: {size} is not between 1 and 1000000.")
    try:
        write(typed.out, sizes, typed.seed)
    except OSError as error:
        print(
            f"{error.filename or typed.out}: {error.strerror}; name a folder that can be written with --out.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
