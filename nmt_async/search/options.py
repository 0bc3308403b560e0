"""How to search: what a beam search, or one that samples, is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from nmt_async.search.penalties import Penalties
from nmt_async.search.sampling_method import SamplingMethod


class Scores(IntEnum):
    """Which scores are wanted: ours come with the search, CTranslate2's cost time."""

    NONE = 0
    OF_TRANSLATIONS = 1
    OF_SUBWORDS = 2


@dataclass(frozen=True)
class Search:
    """How to search. Lengths are in subwords and count the end mark.

    Attributes:
        beam_size: hypotheses followed for each sentence.
        normalize: alpha, the exponent of the length by which scores are divided; see `Penalties`.
        max_length_factor: a translation has at most this many times its source's subwords,
        extra_length: and so many more,
        wanted: hypotheses to return for a sentence, at most ``beam_size``; samples to draw where that is asked for.
        word_penalty: see `Penalties`.
        allow_unknown: ``<unk>`` may be produced.
        max_length: a translation is never longer; None where the factor alone says.
        min_length: and never shorter, as far as the longest length allows,
        min_length_factor: nor than this many times its source's subwords.
        no_repeat_ngram: no run of so many subwords stands twice in a translation; 0 where any may.
        sampling: how to draw subwords; None to search for the best.
        seed: of the draws.
        alignment: hypotheses come with what each of their subwords looked at.
    """

    beam_size: int = 5
    normalize: float = 0.6
    max_length_factor: float = 3.0
    extra_length: int = 10
    wanted: int = 1
    word_penalty: float = 0.0
    allow_unknown: bool = False
    max_length: int | None = None
    min_length: int = 1
    min_length_factor: float = 0.0
    no_repeat_ngram: int = 0
    sampling: SamplingMethod | None = None
    seed: int = 1
    alignment: bool = False

    @property
    def penalties(self) -> Penalties:
        """What hypotheses that have ended are ranked by."""
        return Penalties(self.normalize, self.word_penalty)

    def limits(self, source_lengths: Tensor) -> Tensor:
        """Longest translations for sources of these lengths, both (sentences,), int64."""
        limits = (source_lengths * self.max_length_factor).long() + self.extra_length
        return limits if self.max_length is None else limits.clamp(max=self.max_length)

    def least_lengths(self, source_lengths: Tensor) -> Tensor:
        """Shortest translations for sources of these lengths, both (sentences,), int64."""
        return (source_lengths * self.min_length_factor).long().clamp(min=self.min_length)
