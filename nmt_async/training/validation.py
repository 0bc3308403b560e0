"""Validation in a process of its own, on a frozen copy of the parameters: no worker waits for it."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from torch import Tensor

from nmt_async.cluster.child import settle_in, signals_later, thread_environment
from nmt_async.cluster.shared_memory import SharedVectors
from nmt_async.decoding.options import DecodingOptions
from nmt_async.decoding.scores import corpus_scores
from nmt_async.decoding.translator import Translator
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.decoder_state import TranslationModel
from nmt_async.model.flat import FlatLayout
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import ParallelStore, PreparedData

NICENESS = 10
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class ValidationSettings:
    """What the validation process is told when it starts.

    Attributes:
        data: the prepared folder.
        translate: whether to translate for BLEU and chrF.
        beam_size: of that.
        sentences: translate only so many; 0: all.
    """

    data: Path
    configuration: ModelConfiguration
    translate: bool
    beam_size: int
    sentences: int


@dataclass(frozen=True)
class Scores:
    """Of one version: cross-entropy per target token in nats; BLEU and chrF, None where not translated."""

    cross_entropy: float
    bleu: float | None
    chrf: float | None
    seconds: float


@dataclass(frozen=True)
class Unscored:
    """Validation failed with an exception."""

    error: str


@torch.inference_mode()
def cross_entropy(model: TranslationModel, data: ParallelStore) -> float:
    """Per target token, in nats, without label smoothing and dropout."""
    model.eval()
    plan = BatchPlan(data.source.lengths, data.target.lengths, BATCH_TOKENS, seed=0).epoch(1)
    total, tokens = 0.0, 0
    for number in range(len(plan)):
        batch = data.batch(plan[number])
        logits, targets = model(batch)
        total += float(smoothed_cross_entropy(logits, targets, 0.0))
        tokens += batch.target_tokens
    return total / tokens


def score(model: TranslationModel, data: PreparedData, settings: ValidationSettings) -> Scores:
    """All scores of the model on the validation set of ``data``."""
    assert data.valid is not None
    begin = time.monotonic()
    entropy = cross_entropy(model, data.valid)
    bleu_score = chrf_score = None
    if settings.translate and math.isfinite(entropy):
        sources, references = data.valid_lines()
        count = settings.sentences or len(sources)
        options = DecodingOptions(beam_size=settings.beam_size)
        translator = Translator(
            model, data.source_vocabulary, data.target_vocabulary, options, torch.device("cpu"), warn=lambda _: None
        )
        hypotheses = [translation.text for translation in translator.translate(sources[:count])]
        found = corpus_scores(hypotheses, references[:count], metrics=("BLEU", "chrF"))
        bleu_score, chrf_score = found[0].score, found[1].score
    return Scores(entropy, bleu_score, chrf_score, time.monotonic() - begin)


def run_validator(settings: ValidationSettings, frozen: SharedVectors, pipe: Connection) -> None:
    """The body of the validation process: scores what stands in ``frozen`` whenever it is told to."""
    settle_in(threads=1, niceness=NICENESS)
    try:
        data = PreparedData.open(settings.data)
        model = build_model(settings.configuration)
        FlatLayout(model).bind(model, frozen.tensor[0])
        while pipe.recv():
            pipe.send(score(model, data, settings))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(Unscored(f"{type(error).__name__}: {error}".splitlines()[0]))


class Validator:
    """Scores one version after another, one at a time.

    Args:
        size: of the parameter vector.
        warn: takes a sentence about a validation that failed; training goes on.
    """

    def __init__(self, settings: ValidationSettings, size: int, warn: Callable[[str], None]) -> None:
        self.settings = settings
        self.warn = warn
        self.frozen = SharedVectors(1, size)
        self.step: int | None = None
        self._context = multiprocessing.get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    @property
    def busy(self) -> bool:
        """Whether a version is being scored."""
        return self.step is not None

    def begin(self, step: int, parameters: Tensor) -> None:
        """Begins to score ``parameters`` (size,), which are copied, as those of ``step``.

        Raises:
            OSError: its process could not be started.
        """
        assert not self.busy
        self.frozen.tensor[0].copy_(parameters)
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(True)
        except OSError:  # it was killed this very moment
            self._start()
            self._pipe.send(True)
        self.step = step

    def _start(self) -> None:
        self.close()
        self._pipe, theirs = self._context.Pipe()
        arguments = (self.settings, self.frozen, theirs)
        self._process = self._context.Process(target=run_validator, args=arguments, name="validation", daemon=True)
        try:
            with thread_environment(1), signals_later():
                self._process.start()
        except OSError:
            self._process = None
            raise
        finally:
            theirs.close()

    def result(self, timeout: float | None = 0.0) -> tuple[int, Scores] | None:
        """The step and scores of a finished validation, None if there is none within ``timeout`` seconds."""
        if self.step is None or self._pipe is None or not self._pipe.poll(timeout):
            return None
        step, self.step = self.step, None
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            answer = Unscored("its process was killed; out of memory?")
        if isinstance(answer, Scores):
            return step, answer
        self.close()  # the next validation gets a process of its own
        self.warn(f"the validation of update {step} failed ({answer.error}); training goes on.")
        return None

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self.step = None
