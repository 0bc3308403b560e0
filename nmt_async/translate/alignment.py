"""Which subword of the source each subword of a translation comes from, by attention; in Marian's forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nmt_async.errors import UserError, shown

Alignment = Sequence[Sequence[float]]
"""One row for each target subword and the end mark, over the source's subwords and its end mark."""


@dataclass(frozen=True)
class AlignmentForm:
    """As Marian's ``--alignment``.

    Attributes:
        threshold: None: all weights (``soft``); 1: the one source subword that weighs most (``hard``); else all
            source subwords that weigh more.
    """

    threshold: float | None

    @classmethod
    def parse(cls, text: str) -> AlignmentForm:
        """``soft``, ``hard`` or a number above 0 and at most 1, which is hard.

        Raises:
            UserError: it is none of them.
        """
        if text == "soft":
            return cls(None)
        try:
            threshold = 1.0 if text == "hard" else float(text)
        except ValueError:
            threshold = math.nan
        if not 0 < threshold <= 1:
            raise UserError(f"{shown(text)} is no form of alignment; give soft, hard or a weight above 0 and below 1.")
        return cls(threshold)

    def __str__(self) -> str:
        return {None: "soft", 1.0: "hard"}.get(self.threshold) or repr(self.threshold)

    def text(self, alignment: Alignment) -> str:
        """``0-0 1-2``, source and target position, by source; soft ``0.9,0.1 0.2,0.8``, a group a target subword."""
        if self.threshold is None:
            return " ".join(",".join(f"{weight:g}" for weight in row) for row in alignment)
        return " ".join(f"{source}-{target}" for source, target in links(alignment, self.threshold))


def links(alignment: Alignment, threshold: float = 1.0) -> list[tuple[int, int]]:
    """Pairs of a source and a target position, in that order: those that weigh more than ``threshold``.

    With 1, for each target position the source position that weighs most, of equal ones the first.
    """
    if threshold == 1.0:
        return sorted((max(range(len(row)), key=row.__getitem__), target) for target, row in enumerate(alignment))
    return sorted(
        (source, target) for target, row in enumerate(alignment) for source, weight in enumerate(row)
        if weight > threshold
    )  # fmt: skip
