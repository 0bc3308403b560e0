"""How probable given translations are to a model: teacher-forced, all subwords of a batch at once.

`Scorer` is Python's: ``from nmt_async import Scorer``. The command ``score`` does the same by the same classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.packed_matrix import on_device
from nmt_async.model.translation_model import TranslationModel, evaluating
from nmt_async.score.options import ScoringOptions
from nmt_async.search import Ensemble, ModelPath, Weights, load_models
from nmt_async.text.batch import Batch, pad
from nmt_async.text.corpora import tagged
from nmt_async.text.vocabulary import END, Vocabulary
from nmt_async.translate.lines import checked_lines, warn_on_stderr, windows
from nmt_async.translate.options import changed_options
from nmt_async.translate.translator import length_of_tag, use_device

LONGER_TARGET = 4
"""Times its `max_length` that a translation may have subwords; a search's are never as long."""

Pair = tuple[str, str]
"""A line and a translation of it."""


@dataclass(frozen=True)
class Scored:
    """What a model thinks of a translation.

    Attributes:
        score: summed log-probability in nats, the end mark's included; of nothing for nothing, 0, as a search has it.
        normalised: the score after penalties (`nmt_async.search.penalties`).
        tokens: its subwords.
        token_scores: log-probability of each, then of the end mark; empty where nothing was computed.
    """

    score: float
    normalised: float
    tokens: tuple[str, ...]
    token_scores: tuple[float, ...]

    @property
    def cross_entropy(self) -> float:
        """Per subword, end mark counted, in nats."""
        return -self.score / max(1, len(self.token_scores))


NOTHING = Scored(0.0, 0.0, (), ())


@torch.inference_mode()
def token_scores(model: TranslationModel, batch: Batch) -> list[Tensor]:
    """Of each row, the log-probabilities (target_length,) of its target subwords, in nats, float32 on the CPU.

    An ensemble's are the weighted sums of its models', as in its search.
    """
    if isinstance(model, Ensemble):
        of_models = [token_scores(cast(TranslationModel, each), batch) for each in model.models]
        return [
            torch.stack([weight * scores for weight, scores in zip(model.weights, of_row, strict=True)]).sum(0)
            for of_row in zip(*of_models, strict=True)
        ]
    logits, targets = model(batch)
    scores = -F.cross_entropy(logits, targets, reduction="none")
    return list(torch.split(scores.float().cpu(), batch.target_lengths.tolist()))


class LineScorer:
    """A model with its vocabularies, to score what others translated.

    Args:
        model: moved to ``device``.
        device: where to compute.
        sides: what warnings call them.
        in_pieces: targets are subwords with spaces between, as `Scored.tokens` has them, and are taken as they are.
        warn: called with a sentence for each line that is cut.

    Raises:
        UserError: the vocabulary has no such subword as the tag of the options.
    """

    def __init__(
        self,
        model: TranslationModel,
        source_vocabulary: Vocabulary,
        target_vocabulary: Vocabulary,
        options: ScoringOptions,
        device: torch.device,
        in_pieces: bool = False,
        sides: tuple[str, str] = ("source", "target"),
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        self.model = on_device(model, device)
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.options = options
        self.device = device
        self.in_pieces = in_pieces
        self.sides = sides
        self.warn = warn
        self._tag_length = length_of_tag(options.tag, source_vocabulary)

    def score(self, pairs: Iterable[Pair], at_hand: bool = False) -> Iterator[Scored]:
        """What the model thinks of each pair, in their order; in windows, so that memory is constant.

        Args:
            at_hand: no pair has to be waited for (see `windows`).
        """
        first = 1
        for window in windows(pairs, self.options.mini_batch * self.options.maxi_batch, at_hand):
            yield from self.score_window(window, first)
            first += len(window)

    def score_window(self, pairs: Sequence[Pair], first: int = 1) -> list[Scored]:
        """Of pairs that are numbered from ``first``."""
        scored = [NOTHING] * len(pairs)
        tag = self.options.tag or ""
        sources = self.source_vocabulary.encode_lines([tagged(tag, source) for source, _ in pairs])
        targets = self._encode_targets([target for _, target in pairs])
        rows: list[tuple[int, list[int], list[int]]] = []
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if len(source) > 1 + self._tag_length or len(target) > 1:
                limit, number = self.options.max_length, first + index
                target = self._cut(target, LONGER_TARGET * limit, number, self.sides[1])
                rows.append((index, self._cut(source, limit, number, self.sides[0]), target))
        rows.sort(key=lambda row: (len(row[1]), len(row[2])), reverse=True)
        with evaluating(self.model):
            for batch in self._batches(rows):
                sides = pad([source for _, source, _ in batch]) + pad([target for _, _, target in batch])
                found = token_scores(self.model, Batch(*sides).to(self.device))
                for (index, _, target), scores in zip(batch, found, strict=True):
                    scored[index] = self._scored(target, scores)
        return scored

    def _encode_targets(self, targets: list[str]) -> list[list[int]]:
        if not self.in_pieces:
            return self.target_vocabulary.encode_lines(targets)
        return [
            [*self.target_vocabulary.ids([piece for piece in target.split(" ") if piece]), END] for target in targets
        ]

    def _cut(self, ids: list[int], limit: int, number: int, side: str) -> list[int]:
        if len(ids) <= limit:
            return ids
        self.warn(f"the {side} of line {number:,} has {len(ids):,} subwords and is cut to {limit:,}.")
        return [*ids[: limit - 1], END]

    def _batches(
        self, rows: list[tuple[int, list[int], list[int]]]
    ) -> Iterator[list[tuple[int, list[int], list[int]]]]:
        """Rows in batches within the limits of sentences and, on either side, of padded subwords."""
        batch: list[tuple[int, list[int], list[int]]] = []
        longest = 0
        for row in rows:
            longest = max(longest, len(row[1]), len(row[2]))
            full = len(batch) == self.options.mini_batch or longest * (len(batch) + 1) > self.options.mini_batch_words
            if batch and full:
                yield batch
                batch, longest = [], max(len(row[1]), len(row[2]))
            batch.append(row)
        if batch:
            yield batch

    def _scored(self, target: list[int], scores: Tensor) -> Scored:
        total = scores.double().sum()
        normalised = self.options.penalties.ranked(total, len(target))
        tokens = self.target_vocabulary.pieces(target[:-1])
        return Scored(float(total), float(normalised), tokens, tuple(scores.tolist()))


class Scorer:
    """Says how probable translations are to a trained model, or to several as one.

    >>> Scorer("run").score(["A dog runs."], ["Ein Hund läuft."])[0].score   # doctest: +SKIP
    -1.7

    Args: as `nmt_async.translate.translator.Translator` has them.
    """

    def __init__(
        self,
        model: ModelPath | Sequence[ModelPath],
        *,
        weights: Weights | Sequence[float] | str | None = None,
        device: str | None = None,
        threads: int | None = None,
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        self.options = ScoringOptions(device=device, threads=threads)
        self.device = use_device(self.options)
        self.loaded = load_models(model, weights, "--model-weights")
        self.warn = warn

    def score(
        self, sources: Iterable[str], targets: Iterable[str], **options: Any
    ) -> list[Scored]:  # fmt: skip
        """What the model thinks of each target as the translation of its source, in their order.

        Args:
            options: fields of `ScoringOptions`, as ``nmt-async score`` has them; their defaults are the same.

        Raises:
            ValueError: there are more sources than targets, or fewer.
            UserError: an option that makes no sense.
            TypeError: there is no such option, or it belongs to the model: device, threads.
        """
        return list(self.stream(list(zip(checked_lines(sources), checked_lines(targets), strict=True)), **options))

    def stream(
        self, pairs: Iterable[Pair], *, at_hand: bool = False, **options: Any
    ) -> Iterator[Scored]:  # fmt: skip
        """As `score`, in constant memory; ``at_hand`` as in `Translator.stream`."""
        return self.line_scorer(changed_options(self.options, options)).score(pairs, at_hand)

    def line_scorer(
        self, options: ScoringOptions, in_pieces: bool = False, sides: tuple[str, str] = ("source", "target")
    ) -> LineScorer:  # fmt: skip
        """What scores pairs with these options (its device and threads are the scorer's); see `LineScorer`."""
        model, source, target = self.loaded.model, self.loaded.source_vocabulary, self.loaded.target_vocabulary
        return LineScorer(model, source, target, options, self.device, in_pieces, sides, self.warn)
