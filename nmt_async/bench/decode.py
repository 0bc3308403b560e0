"""Speed of decoding here: engines take turns on the same text in one run, so that a noisy machine wrongs none.

Ratios are taken within a round, to CTranslate2 in float32 as one uses it by hand. A turn is everything between lines
and lines: subwords, batches of sentences of like length, search, text.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from nmt_async.bench.decoders import Decoded, Decoder, Job
from nmt_async.bench.options import YARDSTICK, DecodeBenchOptions
from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import UserError
from nmt_async.export.ctranslate2 import unsupported
from nmt_async.model.linear import not_in_int8
from nmt_async.translate.lines import TextFile


@dataclass(frozen=True)
class DecodeResult:
    """One engine's figures with one beam and so many threads.

    Attributes:
        rates: sentences a second, one for each round.
        token_rates: the same in subwords of the translations, end marks counted.
        ratios: to `YARDSTICK`, in the same round; empty if that was not measured.
        cpu_ratios: the same of processor time, which other programs' load disturbs less.
        same: share of the lines whose translation is the yardstick's; None if that was not measured.
    """

    engine: str
    beam_size: int
    threads: int
    rates: list[float]
    token_rates: list[float]
    ratios: list[float]
    cpu_ratios: list[float]
    same: float | None

    @property
    def rate(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float | None:
        """The median ratio."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def cpu_ratio(self) -> float | None:
        """The median ratio of processor time."""
        return statistics.median(self.cpu_ratios) if self.cpu_ratios else None


@dataclass(frozen=True)
class DecodeMeasured:
    """What a measurement found.

    Attributes:
        notes: a sentence for each engine that was left out, with the reason.
    """

    results: list[DecodeResult]
    notes: list[str]


def measure_decoding(options: DecodeBenchOptions, folder: Path, step: Callable[[int, int], None]) -> DecodeMeasured:
    """Measures the engines in alternation.

    Args:
        folder: of the run or model.
        step: told after each turn how many are done, and of how many.

    Raises:
        UserError: there is no such model or text, or none was named. RunFailure: a process ended.
    """
    if options.input is None:
        raise UserError("bench decode needs --input FILE, the text to translate.")
    loaded = load_model(folder)
    lines = list(itertools.islice(TextFile(options.input, "--input"), options.sentences))
    if not any(line.strip() for line in lines):
        raise UserError(f"--input: {options.input} has no words to translate.")
    engines, notes = _possible(options, loaded)
    settings = list(itertools.product(dict.fromkeys(options.threads), dict.fromkeys(options.beam_size)))
    total, done = (options.rounds + 1) * len(settings) * len(engines), 0
    turns: dict[tuple[str, int, int], list[Decoded]] = {}
    with ExitStack() as stack:
        decoders = {
            (name, threads): stack.enter_context(
                closing(Decoder(Job(name, loaded.folder, lines, threads, options.mini_batch, options.length)))
            )
            for name in engines
            for threads in dict.fromkeys(options.threads)
        }
        for round_number in range(options.rounds + 1):
            for (threads, beam), name in itertools.product(settings, engines):
                turn = decoders[name, threads].turn(beam)
                done += 1
                step(done, total)
                if round_number:  # the first warms up
                    turns.setdefault((name, beam, threads), []).append(turn)
    return DecodeMeasured(_results(turns, loaded, options.length), notes)


def _possible(options: DecodeBenchOptions, loaded: LoadedModel) -> tuple[list[str], list[str]]:
    """The engines that can be measured, and why others cannot."""
    reason = unsupported(loaded)
    if importlib.util.find_spec("ctranslate2") is None:
        reason = "it is not installed (pip install 'nmt-async[ctranslate2]')"
    engines, notes = [], []
    for name in dict.fromkeys(options.engines):
        if not name.startswith("torch") and reason is not None:
            notes.append(f"{name} is left out: CTranslate2 is needed, but {reason}.")
        elif name == "torch-int8" and (unfit := not_in_int8(loaded.model)) is not None:
            notes.append(f"{name} is left out: {unfit}.")
        elif name == "ctranslate2" and options.length is not None:
            notes.append(f"{name} is left out: what reaches its longest length there is translated again by torch.")
        else:
            engines.append(name)
    return engines, notes


def _results(
    turns: dict[tuple[str, int, int], list[Decoded]], loaded: LoadedModel, length: int | None
) -> list[DecodeResult]:
    results = []
    for (name, beam, threads), decoded in turns.items():
        best = turns.get((YARDSTICK, beam, threads), [])
        texts = decoded[-1].texts
        tokens = len(texts) * length if length else sum(map(len, loaded.target_vocabulary.encode_lines(texts)))
        same = None
        if best:
            same = sum(a == b for a, b in zip(texts, best[-1].texts, strict=True)) / len(texts)
        results.append(
            DecodeResult(
                name,
                beam,
                threads,
                [len(texts) / turn.seconds for turn in decoded],
                [tokens / turn.seconds for turn in decoded],
                [other.seconds / turn.seconds for turn, other in zip(decoded, best, strict=False)],
                [other.cpu_seconds / turn.cpu_seconds for turn, other in zip(decoded, best, strict=False)],
                same,
            )
        )
    return results
