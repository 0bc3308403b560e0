"""What validation scores: the loss of each sentence pair, and BLEU and chrF of their translations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.linear import packed
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.model.quantization_options import Quantization
from nmt_async.model.translation_model import TranslationModel
from nmt_async.score.evaluation import corpus_scores
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchPlan, EpochPlan
from nmt_async.text.prepared import ParallelStore, PreparedData
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class ValidationSettings:
    """What the validation process is told when it starts.

    Attributes:
        data: the prepared folder.
        translate: whether to translate for BLEU and chrF.
        beam_size: of that.
        sentences: translate only so many; 0: all.
        quantization: of the model; None: it has none.
    """

    data: Path
    configuration: ModelConfiguration
    translate: bool
    beam_size: int
    sentences: int
    quantization: Quantization | None = None

    def quantise(self, vector: Tensor, layout: FlatLayout) -> None:
        """Makes the parameters ``vector`` (size,) those of the model that is saved, in place."""
        if self.quantization is not None:
            quantise_vector(vector, layout, self.quantization, vector)


@dataclass(frozen=True)
class Scores:
    """Of one version.

    Attributes:
        losses: of each sentence pair, summed over its target tokens, in nats; (pairs,).
        tokens: target tokens of each pair, (pairs,).
        bleu, chrf: of the translations, None where not translated.
        seconds: that the scoring took.
        corpus_pairs: how many of the pairs are of each corpus, by its name, in the order of the pairs; empty where the
            data are not divided into corpora.
    """

    losses: np.ndarray
    tokens: np.ndarray
    bleu: float | None
    chrf: float | None
    seconds: float
    corpus_pairs: Mapping[str, int] = field(default_factory=dict)

    @property
    def cross_entropy(self) -> float:
        """Per target token, in nats."""
        return float(self.losses.sum() / self.tokens.sum())

    def corpus_cross_entropy(self) -> dict[str, float]:
        """That of each corpus which has validation pairs."""
        found, begin = {}, 0
        for name, pairs in self.corpus_pairs.items():
            end = begin + pairs
            if pairs:
                found[name] = float(self.losses[begin:end].sum() / self.tokens[begin:end].sum())
            begin = end
        return found


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
        torch.device("cpu"), warn=lambda _: None, computed=computed, scores=WantedScores.NONE,
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

    with packed(model):
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
    return Scores(losses, tokens, bleu_score, chrf_score, time.monotonic() - begin, _corpus_pairs(data))


def _corpus_pairs(data: PreparedData) -> dict[str, int]:
    """Of the validation set."""
    corpora = [] if data.corpora is None else data.corpora.corpora
    return {corpus.name: corpus.valid_pairs for corpus in corpora}


@dataclass(frozen=True)
class BatchScored:
    """A validation goes on: one more batch's losses or translations are computed, which took so many seconds."""

    seconds: float
