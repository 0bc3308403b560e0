"""Validation on a frozen copy of the parameters: in a process of its own, so that no worker waits, or at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.build import build_unfilled
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.process.child import Child
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.process.watchdog import LONGEST_STEP, Watchdog, Watched
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


@dataclass(frozen=True)
class BatchScored:
    """A validation goes on: one more batch's losses or translations are computed, which took so many seconds."""

    seconds: float


@torch.inference_mode()
def sentence_losses(
    model: TranslationModel, data: ParallelStore, computed: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Of each pair, summed over its target tokens, in nats, without label smoothing and dropout: (pairs,).

    Args:
        computed: called after each batch.
    """
    model.eval()
    plan = validation_plan(data)
    losses = np.zeros(len(data))
    for number in range(len(plan)):
        losses[plan[number]] = batch_losses(model, data.batch(plan[number])).numpy()
        computed()
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


def validation_translator(
    model: TranslationModel, data: PreparedData, beam_size: int, computed: Callable[[], None] = lambda: None
) -> LineTranslator:
    """What translates the validation set; ``computed`` is called after each batch."""
    return LineTranslator(
        model, data.source_vocabulary, data.target_vocabulary, DecodingOptions(beam_size=beam_size),
        torch.device("cpu"), warn=lambda _: None, computed=computed,
    )  # fmt: skip


def score(
    model: TranslationModel,
    data: PreparedData,
    settings: ValidationSettings,
    tell: Callable[[BatchScored], None] = lambda _: None,
) -> Scores:
    """All scores of the model on the validation set of ``data``; ``tell`` is called after each batch."""
    assert data.valid is not None
    begin = time.monotonic()
    latest = begin

    def computed() -> None:
        nonlocal latest
        now = time.monotonic()
        tell(BatchScored(now - latest))
        latest = now

    losses = sentence_losses(model, data.valid, computed)
    bleu_score = chrf_score = None
    if settings.translate and math.isfinite(losses.sum()):
        sources, references = data.valid_lines()
        count = settings.sentences or len(sources)
        translator = validation_translator(model, data, settings.beam_size, computed)
        hypotheses = [translation.text for translation in translator.translate(sources[:count])]
        found = corpus_scores(hypotheses, references[:count], metrics=("BLEU", "chrF"))
        bleu_score, chrf_score = found[0].score, found[1].score
    tokens = np.asarray(data.valid.target.lengths)
    return Scores(losses, tokens, bleu_score, chrf_score, time.monotonic() - begin)


def run_validator(settings: ValidationSettings, frozen: SharedVectors, pipe: Connection) -> None:
    """The body of the validation process: scores what stands in ``frozen`` whenever it is told to."""
    try:
        data = PreparedData.open(settings.data)
        model = build_unfilled(settings.configuration)
        FlatLayout(model).bind(model, frozen.tensor[0])
        while pipe.recv():
            pipe.send(score(model, data, settings, pipe.send))
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

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:
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
        self._model = build_unfilled(settings.configuration)
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

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:  # noqa: ARG002
        """The step and scores of a validation not yet taken."""
        if self.step is None or self._scores is None:
            return None
        step, self.step = self.step, None
        return step, self._scores

    def close(self) -> None:
        """Nothing to end."""


class ProcessValidator:
    """Scores in a process of its own, which is under the law of silence that workers are under.

    Args:
        size: of the parameter vector.
        warn: takes a sentence about a validation that failed, or of which nothing is heard; training goes on.
        log: takes the stacks of one of which nothing is heard.
        timeout: seconds of silence after which a validation is given up; 0: never. See `Silence`.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        size: int,
        warn: Callable[[str], None],
        log: Callable[[str], None],
        timeout: float,
    ) -> None:
        self.settings = settings
        self.warn = warn
        self.watchdog = Watchdog(timeout, warn, log)
        self._shared = SharedVectors(1, size)
        self.frozen = self._shared.tensor[0]
        self.step: int | None = None
        self._scorer: Watched | None = None

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
        scorer = self._scorer
        if scorer is None or scorer.process.exitcode is not None:
            scorer = self._start()
        try:
            scorer.process.pipe.send(True)
        except OSError:  # it was killed this very moment
            scorer = self._start()
            scorer.process.pipe.send(True)
        self.watchdog.heard(scorer)
        self.step = step

    def _start(self) -> Watched:
        self._end()
        child = Child("validation", run_validator, (self.settings, self._shared), threads=1, niceness=NICENESS)
        self._scorer = Watched(child)
        return self._scorer

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:
        """The step and scores of a finished validation, None if there is none within ``timeout`` seconds."""
        step, scorer = self.step, self._scorer
        if step is None or scorer is None:
            return None
        limit = time.monotonic() + timeout
        while True:
            if self.watchdog.look([scorer], {0: f"at the validation of update {step:,}"}):
                break
            if not scorer.process.pipe.poll(min(max(0.0, limit - time.monotonic()), LONGEST_STEP / 2)):
                if time.monotonic() >= limit:
                    return None
                continue
            try:
                answer = scorer.process.pipe.recv()
            except (EOFError, OSError):
                scorer.error = "its process was killed; out of memory?"
                break
            self.watchdog.heard(scorer)
            if isinstance(answer, Scores):
                self.step = None
                return step, answer
            if isinstance(answer, Unscored):
                scorer.error = answer.error
                break
            scorer.starting = False
            self.watchdog.silence.computed(answer.seconds)
        self._end()  # the next validation gets a process of its own
        self.warn(f"the validation of update {step} failed ({scorer.error}); training goes on.")
        return None

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        self._end()
        self._shared.close()

    def _end(self) -> None:
        if self._scorer is not None:
            self._scorer.process.end()
            self.watchdog.ended(self._scorer)
            self._scorer.process.close()
            self._scorer = None
        self.step = None
