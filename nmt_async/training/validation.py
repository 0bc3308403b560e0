"""Validation on a frozen copy of the parameters: in a process of its own, so that no worker waits, or at once."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.cluster.child import settle_in, signals_later, thread_environment
from nmt_async.cluster.shared_memory import SharedVectors
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.score.evaluation import corpus_scores
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchPlan, EpochPlan
from nmt_async.text.prepared import ParallelStore, PreparedData
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

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
    """Of one version.

    Attributes:
        losses: of each sentence pair, summed over its target tokens, in nats; (pairs,).
        tokens: target tokens of each pair, (pairs,).
        bleu, chrf: of the translations, None where not translated.
        seconds: that the scoring took.
    """

    losses: np.ndarray
    tokens: np.ndarray
    bleu: float | None
    chrf: float | None
    seconds: float

    @property
    def cross_entropy(self) -> float:
        """Per target token, in nats."""
        return float(self.losses.sum() / self.tokens.sum())


@dataclass(frozen=True)
class Unscored:
    """Validation failed with an exception."""

    error: str


@torch.inference_mode()
def sentence_losses(model: TranslationModel, data: ParallelStore) -> np.ndarray:
    """Of each pair, summed over its target tokens, in nats, without label smoothing and dropout: (pairs,)."""
    model.eval()
    plan = validation_plan(data)
    losses = np.zeros(len(data))
    for number in range(len(plan)):
        losses[plan[number]] = batch_losses(model, data.batch(plan[number])).numpy()
    return losses


def validation_plan(data: ParallelStore) -> EpochPlan:
    """The batches in which the loss of the validation pairs is computed."""
    return BatchPlan(data.source.lengths, data.target.lengths, BATCH_TOKENS, seed=0).epoch(1)


def batch_losses(model: TranslationModel, batch: Batch) -> Tensor:
    """Of each pair, summed over its target tokens, in nats: (pairs,), float64."""
    logits, targets = model(batch)
    of_tokens = F.cross_entropy(logits, targets, reduction="none").double()
    row_of_token = torch.repeat_interleave(torch.arange(len(batch)), batch.target_lengths)
    return torch.zeros(len(batch)).double().index_add_(0, row_of_token, of_tokens)


def validation_translator(model: TranslationModel, data: PreparedData, beam_size: int) -> LineTranslator:
    """What translates the validation set."""
    return LineTranslator(
        model, data.source_vocabulary, data.target_vocabulary, DecodingOptions(beam_size=beam_size),
        torch.device("cpu"), warn=lambda _: None,
    )  # fmt: skip


def score(model: TranslationModel, data: PreparedData, settings: ValidationSettings) -> Scores:
    """All scores of the model on the validation set of ``data``."""
    assert data.valid is not None
    begin = time.monotonic()
    losses = sentence_losses(model, data.valid)
    bleu_score = chrf_score = None
    if settings.translate and math.isfinite(losses.sum()):
        sources, references = data.valid_lines()
        count = settings.sentences or len(sources)
        translator = validation_translator(model, data, settings.beam_size)
        hypotheses = [translation.text for translation in translator.translate(sources[:count])]
        found = corpus_scores(hypotheses, references[:count], metrics=("BLEU", "chrF"))
        bleu_score, chrf_score = found[0].score, found[1].score
    tokens = np.asarray(data.valid.target.lengths)
    return Scores(losses, tokens, bleu_score, chrf_score, time.monotonic() - begin)


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


class Validator(Protocol):
    """Scores one version after another, one at a time."""

    @property
    def step(self) -> int | None:
        """Whose scores are still to come."""

    @property
    def busy(self) -> bool:
        """Whether a version is being scored."""

    @property
    def frozen(self) -> Tensor:
        """The parameters (size,) scored last."""

    def begin(self, step: int, parameters: Tensor) -> None:
        """Begins to score ``parameters`` (size,), which are copied, as those of ``step``."""

    def result(self, timeout: float | None = 0.0) -> tuple[int, Scores] | None:
        """The step and scores of a finished validation, None if there is none within ``timeout`` seconds."""

    def close(self) -> None:
        """Nothing more will be scored."""


class InlineValidator:
    """Scores in this process, at once."""

    def __init__(self, settings: ValidationSettings, size: int) -> None:
        self.settings = settings
        self.frozen = torch.zeros(size)
        self.step: int | None = None
        self._scores: Scores | None = None
        self._data = PreparedData.open(settings.data)
        self._model = build_model(settings.configuration)
        FlatLayout(self._model).bind(self._model, self.frozen)

    @property
    def busy(self) -> bool:
        """Whether scores wait to be taken."""
        return self.step is not None

    def begin(self, step: int, parameters: Tensor) -> None:
        """Scores ``parameters`` (size,)."""
        self.frozen.copy_(parameters)
        self._scores = score(self._model, self._data, self.settings)
        self.step = step

    def result(self, timeout: float | None = 0.0) -> tuple[int, Scores] | None:  # noqa: ARG002
        """The step and scores of a validation not yet taken."""
        if self.step is None or self._scores is None:
            return None
        step, self.step = self.step, None
        return step, self._scores

    def close(self) -> None:
        """Nothing to end."""


class ProcessValidator:
    """Scores in a process of its own.

    Args:
        size: of the parameter vector.
        warn: takes a sentence about a validation that failed; training goes on.
    """

    def __init__(self, settings: ValidationSettings, size: int, warn: Callable[[str], None]) -> None:
        self.settings = settings
        self.warn = warn
        self._shared = SharedVectors(1, size)
        self.frozen = self._shared.tensor[0]
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
        self.frozen.copy_(parameters)
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
        self._end()
        self._pipe, theirs = self._context.Pipe()
        arguments = (self.settings, self._shared, theirs)
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
        self._end()  # the next validation gets a process of its own
        self.warn(f"the validation of update {step} failed ({answer.error}); training goes on.")
        return None

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        self._end()
        self._shared.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self.step = None
