"""What is measured of decoding: our engines, and CTranslate2 as one uses it by hand; each in a process of its own.

The processes never compute at the same time, and each has only its own thread pool: those of two libraries in one
process would wait for work on the same cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.errors import RunFailure
from nmt_async.export.ctranslate2 import export_ctranslate2, import_ctranslate2
from nmt_async.process.child import Child
from nmt_async.text.vocabulary import END
from nmt_async.translate.engine import engine_named
from nmt_async.translate.formats import WantedScores
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
    """

    engine: str
    folder: Path
    lines: list[str]
    threads: int
    mini_batch: int
    length: int | None = None


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
            device = torch.device("cpu")
            search = options.search()
            engine = engine_named(engine_name, loaded, search, device, print, options.precision, WantedScores.NONE)
            self[beam] = LineTranslator(
                loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, device, engine=engine
            )
            if job.length is not None:
                self[beam].search = replace(search, max_length_factor=1000.0, max_target_length=job.length)
            return self[beam]

    translators = Translators()
    return decode


def _by_hand(job: Job, loaded: LoadedModel) -> Decode:
    quantization = "int8" if job.engine == "by-hand-int8" else "float32"
    with tempfile.TemporaryDirectory(prefix="nmt-async-bench-") as folder:
        export_ctranslate2(loaded, Path(folder) / "model", quantization)
        translator = import_ctranslate2().Translator(
            str(Path(folder) / "model"), compute_type=quantization, inter_threads=job.threads, intra_threads=1
        )
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
    loaded = load_model(job.folder)
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
