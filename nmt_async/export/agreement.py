"""Whether two programs translate the same with the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nmt_async.checkpoints.model_folder import LoadedModel
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import LineTranslator


@dataclass(frozen=True)
class Scored:
    """A translation of a line, and its summed log-probability divided by length^alpha."""

    text: str
    score: float


@dataclass(frozen=True)
class Agreement:
    """Of two sides over the same lines.

    Attributes:
        lines: that were translated.
        identical: of them, those whose translations are the same text.
        score_difference: the largest between scores of the same text, in nats divided by length^alpha.
    """

    lines: int
    identical: int
    score_difference: float

    @property
    def share(self) -> float:
        """Of identical lines."""
        return self.identical / self.lines


def compared(
    loaded: LoadedModel, lines: Sequence[str], theirs: Sequence[Scored], options: DecodingOptions
) -> Agreement:
    """How our translations of ``lines`` agree with another side's."""
    translator = LineTranslator(
        loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, torch.device("cpu")
    )
    ours = [Scored(translation.text, translation.score) for translation in translator.translate(lines)]
    return agreement(ours, theirs)


def agreement(ours: Sequence[Scored], theirs: Sequence[Scored]) -> Agreement:
    """Of two sides, line by line; space at the ends of lines does not count."""
    pairs = zip(ours, theirs, strict=True)
    same = [abs(one.score - other.score) for one, other in pairs if one.text.strip() == other.text.strip()]
    return Agreement(len(ours), len(same), max(same, default=0.0))
