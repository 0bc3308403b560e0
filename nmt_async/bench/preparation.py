"""Speed and memory of ``prepare`` here, beside SentencePiece's own encoder, and how soon training has its first batch.

The text is generated: two sentences of the demo's corpus make one, so that there are hundreds of millions. The two take
turns on it, each in a process of its own, so that a noisy machine slows both alike and each one's memory is its own.
SentencePiece reads both sides and encodes them, 20,000 lines at once, on as many threads, and keeps nothing. Prepare
does all that it does: it cleans, looks for duplicates, encodes with the same vocabulary, writes and syncs.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nmt_async.bench.options import ENCODER, FIRST_BATCH, PREPARE, PrepareBenchOptions
from nmt_async.demo_corpus.generate import generate
from nmt_async.errors import RunFailure
from nmt_async.free_memory import most_memory
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare
from nmt_async.text.vocabulary import train_vocabulary

SENTENCES = 20_000
"""Of the demo's corpus, of which pairs are made; the vocabulary is learnt from them."""
LINES = 20_000
"""That SentencePiece is given at once."""
BATCHES = 200


@dataclass(frozen=True)
class PrepareTurn:
    """What one process took.

    Attributes:
        contender: who.
        seconds, cpu_seconds: without the time in which Python starts and imports.
        memory: its most, in bytes, with the pages of files that it had mapped.
        batch_seconds: of `FIRST_BATCH`, that each of the batches after the first took to be read; None for others.
    """

    contender: str
    seconds: float
    cpu_seconds: float
    memory: int
    batch_seconds: float | None = None


def measure_preparation(options: PrepareBenchOptions, step: Callable[[int], None]) -> list[PrepareTurn]:
    """All turns, in their order: each round one of the encoder and one of prepare, and last the first batch.

    Args:
        step: told how many turns are over.

    Raises:
        RunFailure: the disk is full, or a process failed.
    """
    turns: list[PrepareTurn] = []
    try:
        with tempfile.TemporaryDirectory(prefix="nmt-async-bench-", dir=options.temporary) as temporary:
            folder = Path(temporary)
            _generate(options, folder)
            for contender in [*(ENCODER, PREPARE) * options.rounds, FIRST_BATCH]:
                turns.append(_turn(contender, options, folder))
                step(len(turns))
    except OSError as error:
        raise RunFailure(
            f"no text can be generated in {options.temporary or tempfile.gettempdir()} "
            f"({(error.strerror or str(error)).lower()}); name another folder with --temporary, or fewer --pairs."
        ) from None
    return turns


def _generate(options: PrepareBenchOptions, folder: Path) -> None:
    pairs = list(generate(SENTENCES, seed=1))
    lines = [line for pair in pairs for line in pair]
    train_vocabulary(lines, options.vocab_size, "unigram", folder / "vocabulary.model")
    with (folder / "en").open("w", encoding="utf-8") as source, (folder / "de").open("w", encoding="utf-8") as target:
        for first, second in islice(_joined(pairs), options.pairs):
            source.write(f"{first[0]} {second[0]}\n")
            target.write(f"{first[1]} {second[1]}\n")


def _joined(pairs: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    chance = random.Random(1)
    while True:
        yield from zip(chance.choices(pairs, k=LINES), chance.choices(pairs, k=LINES), strict=True)


def _turn(contender: str, options: PrepareBenchOptions, folder: Path) -> PrepareTurn:
    if contender == PREPARE:
        shutil.rmtree(folder / "data", ignore_errors=True)
    command = [sys.executable, "-P", "-m", __name__, contender, str(folder), str(options.threads_used)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RunFailure(f"{contender} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return PrepareTurn(**json.loads(done.stdout))


def encode_alone(folder: Path, threads: int) -> None:
    """What SentencePiece's own encoder does with the text in ``folder``."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "vocabulary.model"))
    for side in ("en", "de"):
        with (folder / side).open(encoding="utf-8") as text:
            while lines := [line.rstrip("\n") for line in islice(text, LINES)]:
                model.encode(lines, out_type=int, add_eos=True, num_threads=threads)


def prepare_alone(folder: Path, threads: int) -> None:
    """What prepare does with it."""
    prepare(
        PrepareOptions(
            out=folder / "data", train_source=(folder / "en",), train_target=(folder / "de",),
            vocab=folder / "vocabulary.model", threads=threads,
        )
    )  # fmt: skip


def read_batches(folder: Path) -> float:
    """Has the first batch as training's default options make it; seconds for each of some that follow."""
    from nmt_async.text.plan import BatchId
    from nmt_async.text.prepared import PreparedData
    from nmt_async.text.read_ahead import ReadAhead
    from nmt_async.training.options import TrainOptions
    from nmt_async.training.parts import training_plan

    data = PreparedData.open(folder / "data")
    plan, batch = training_plan(TrainOptions(), data), BatchId(1, 0)
    with closing(ReadAhead(data.train)):
        data.train.batches(plan.parts(batch))
        begin = time.monotonic()
        for _ in range(BATCHES):
            batch = plan.following(batch)
            data.train.batches(plan.parts(batch))
        return (time.monotonic() - begin) / BATCHES


def main(words: list[str]) -> int:
    """The process of a turn: contender, folder and threads; it prints its `PrepareTurn` as JSON."""
    contender, folder, threads = words[0], Path(words[1]), int(words[2])
    begin, cpu = time.monotonic(), time.process_time()
    each: float | None = None
    if contender == FIRST_BATCH:
        each = read_batches(folder)
    else:
        {ENCODER: encode_alone, PREPARE: prepare_alone}[contender](folder, threads)
    spent = time.monotonic() - begin - (0.0 if each is None else each * BATCHES)
    turn = PrepareTurn(contender, spent, time.process_time() - cpu, most_memory(), each)
    print(json.dumps(dataclasses.asdict(turn)))
    return 0


def figures(turns: list[PrepareTurn], pairs: int) -> dict[str, Any]:
    """The turns of each contender, and of each round how fast prepare was in terms of the encoder."""
    own, made = ([turn for turn in turns if turn.contender == name] for name in (ENCODER, PREPARE))
    return {
        "pairs": pairs,
        "turns": [dataclasses.asdict(turn) for turn in turns],
        "ratios": [one.seconds / other.seconds for one, other in zip(own, made, strict=True)],
        "cpu_ratios": [one.cpu_seconds / other.cpu_seconds for one, other in zip(own, made, strict=True)],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
