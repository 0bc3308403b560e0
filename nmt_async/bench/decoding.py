"""Speed of decoding here: engines take turns on the same text, so that a noisy machine slows all of them alike.

Ratios are taken within a round, to CTranslate2 in float32 as one uses it by hand. A turn is everything between lines
and lines: subwords, batches of sentences of like length, search, text.

Each engine has a process of its own. They never compute at the same time, and each has only its own thread pool: those
of two libraries in one process would wait for work on the same cores.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from nmt_async.bench.options import YARDSTICK, DecodeBenchOptions
from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import RunFailure, UserError
from nmt_async.export.ctranslate2 import export_ctranslate2, import_ctranslate2, unsupported
from nmt_async.model.linear import not_in_int8
from nmt_async.process.child import Child
from nmt_async.text.vocabulary import END
from nmt_async.translate.engine import engine_named
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.lines import TextFile
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

Decode = Callable[[int], list[str]]
"""Translates the whole text with a beam of the given size."""

NEVER = -1e4
"""The output bias of an end mark that is not to come."""


@dataclass(frozen=True)
class Job:
    """What a process decodes, and how.

    Attributes:
        engine: one of `nmt_async.bench.options.ENGINES`.
        folder: of the model.
        length: of every translation, in subwords; None for each its own.
        device: where it is decoded, as torch names it.
    """

    engine: str
    folder: Path
    lines: list[str]
    threads: int
    mini_batch: int
    length: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Decoded:
    """One turn.

    Attributes:
        seconds: for the whole text, from lines to lines.
        cpu_seconds: of processor time.
        texts: the translations.
    """

    seconds: float
    cpu_seconds: float
    texts: list[str]


def _ours(job: Job, loaded: LoadedModel) -> Decode:
    def decode(beam: int) -> list[str]:
        return [translation.text for translation in translators[beam].translate(job.lines)]

    class Translators(dict[int, LineTranslator]):
        def __missing__(self, beam: int) -> LineTranslator:
            engine_name, _, precision = job.engine.partition("-")
            options = DecodingOptions(
                beam_size=beam, mini_batch=job.mini_batch, mini_batch_words=10**9, precision=precision or "float32"
            )
            device = torch.device(job.device)
            search = options.search()
            engine = engine_named(engine_name, loaded, search, device, print, options.precision, WantedScores.NONE)
            self[beam] = LineTranslator(
                loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, device, engine=engine,
                scores=WantedScores.NONE,
            )  # fmt: skip
            if job.length is not None:
                self[beam].search = replace(search, max_length_factor=1000.0, max_target_length=job.length)
            return self[beam]

    translators = Translators()
    return decode


def _by_hand(job: Job, loaded: LoadedModel) -> Decode:
    quantization = "int8" if job.engine == "by-hand-int8" else "float32"
    with tempfile.TemporaryDirectory(prefix="nmt-async-bench-") as folder:
        export_ctranslate2(loaded, Path(folder) / "model", quantization)
        kind, _, number = job.device.partition(":")
        translator = import_ctranslate2().Translator(
            str(Path(folder) / "model"), compute_type=quantization, inter_threads=job.threads, intra_threads=1,
            device=kind, device_index=int(number or 0),
        )  # fmt: skip
    subwords = loaded.source_vocabulary.all_pieces
    indexes = {piece: index for index, piece in enumerate(loaded.target_vocabulary.all_pieces)}
    lengths: dict[str, Any] = {"max_decoding_length": 256}
    if job.length is not None:
        lengths = {"max_decoding_length": job.length, "min_decoding_length": job.length}

    def decode(beam: int) -> list[str]:
        encoded = loaded.source_vocabulary.encode_lines(job.lines)
        results = translator.translate_batch(
            [[subwords[index] for index in row[:-1]] for row in encoded],
            beam_size=beam, max_batch_size=job.mini_batch, length_penalty=0.6, **lengths,
        )  # fmt: skip
        return [loaded.target_vocabulary.decode([indexes[p] for p in result.hypotheses[0]]) for result in results]

    return decode


def _serve(job: Job, pipe: Connection) -> None:
    """The body of a process: decodes once whenever it is told a beam's size, and says how long it took."""
    loaded = load_model(job.folder, packed=not job.engine.startswith("by-hand"))
    if job.length is not None:
        with torch.no_grad():
            loaded.model.get_parameter("output_bias")[END] = NEVER
    decode = (_by_hand if job.engine.startswith("by-hand") else _ours)(job, loaded)
    pipe.send(None)
    try:
        while beam := pipe.recv():
            begin, worked = time.monotonic(), time.process_time()
            texts = decode(beam)
            pipe.send(Decoded(time.monotonic() - begin, time.process_time() - worked, texts))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class Decoder:
    """A process that decodes when it is told to.

    Raises:
        RunFailure: it ended.
    """

    def __init__(self, job: Job) -> None:
        self._process = Child(job.engine, _serve, (job,), job.threads)
        self._hear()

    def turn(self, beam: int) -> Decoded:
        """The whole text once."""
        self._process.pipe.send(beam)
        decoded: Decoded = self._hear()
        return decoded

    def _hear(self) -> Any:
        try:
            return self._process.pipe.recv()
        except EOFError:
            raise RunFailure("a process that was measured has ended; perhaps it ran out of memory.") from None

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


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
