"""How translations are written: plain text in Marian's forms, tab-separated values, or JSON, a line each.

With them, where that is asked for: subwords and their scores, and the alignment, which says by attention from which
subwords of the source each subword comes. Tab-separated and in JSON, lines are counted from 1, as in messages;
Marian's n-best lists count from 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from nmt_async.errors import UserError, shown

if TYPE_CHECKING:
    from nmt_async.translate.translator import Candidate, Translation

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


FORMATS = ("text", "tsv", "jsonl")


class WantedScores(IntEnum):
    """Which scores are wanted: ours come with the search, CTranslate2's cost time."""

    NONE = 0
    OF_TRANSLATIONS = 1
    OF_SUBWORDS = 2


@dataclass(frozen=True)
class Printed:
    """What is printed of a translation.

    Attributes:
        form: one of `FORMATS`.
        n_best: all candidates.
        words: their subwords and the scores of those.
        alignment: and what the subwords looked at, in which form; None: not that.
    """

    form: str = "text"
    n_best: bool = False
    words: bool = False
    alignment: AlignmentForm | None = None

    @property
    def scores(self) -> WantedScores:
        """Which must be known for it."""
        if self.words:
            return WantedScores.OF_SUBWORDS
        return WantedScores.NONE if self.form == "text" and not self.n_best else WantedScores.OF_TRANSLATIONS

    def lines(self, number: int, translation: Translation) -> list[str]:
        """What is printed of the line ``number``, counted from 1."""
        candidates = translation.n_best if self.n_best else translation.n_best[:1]
        if self.form == "tsv":
            return ["\t".join(self._fields(number, rank, found)) for rank, found in enumerate(candidates, 1)]
        if self.form == "text":
            return [self._text(number, candidate) for candidate in candidates]
        values = {"line": number, **self._values(candidates[0])}
        if self.n_best:
            values["n_best"] = [self._values(candidate) for candidate in candidates]
        return [json_line(values)]

    def _values(self, candidate: Candidate) -> dict[str, Any]:
        values = {"translation": candidate.text, "score": candidate.score, "normalised": candidate.normalised}
        if self.words:
            values |= words_of(candidate.tokens, candidate.token_scores)
        if self.alignment is not None:
            values["alignment"] = _aligned(self.alignment, candidate)
        return values

    def _fields(self, number: int, rank: int, candidate: Candidate) -> list[str]:
        text = candidate.text.replace("\t", " ")
        fields = [str(number), str(rank), text, f"{candidate.score:.6f}", f"{candidate.normalised:.6f}"]
        if self.words:
            fields += word_fields(candidate.tokens, candidate.token_scores)
        if self.alignment is not None:
            fields.append(self.alignment.text(candidate.alignment or ()))
        return fields

    def _text(self, number: int, candidate: Candidate) -> str:
        """As Marian prints it: with ``--n-best`` with the line's number, from 0, and scores."""
        fields = [str(number - 1), candidate.text] if self.n_best else [candidate.text]
        if self.alignment is not None:
            fields.append(self.alignment.text(candidate.alignment or ()))
        if self.words:
            fields.append(marian_word_scores(candidate.token_scores))
        if self.n_best:
            fields += [f"F0= {candidate.score:.6f}", f"{candidate.normalised:.6f}"]
        return " ||| ".join(fields)


def _aligned(form: AlignmentForm, candidate: Candidate) -> list[Any]:
    """For JSON: a row of weights for each subword and the end mark, or pairs of a source and a target position."""
    alignment = candidate.alignment or ()
    if form.threshold is None:
        return [[round(weight, 6) for weight in row] for row in alignment]
    return [list(link) for link in links(alignment, form.threshold)]


def marian_word_scores(scores: Sequence[float]) -> str:
    """As Marian's ``--word-scores`` prints them."""
    return " ".join(["WordScores=", *(f"{score:.5f}" for score in scores)])


def words_of(tokens: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    """For JSON."""
    return {"tokens": list(tokens), "token_scores": list(scores)}


def word_fields(tokens: Sequence[str], scores: Sequence[float]) -> list[str]:
    """For tab-separated values, with spaces between subwords and between scores."""
    return [" ".join(tokens), " ".join(f"{score:.6f}" for score in scores)]


def json_line(values: Mapping[str, Any]) -> str:
    """The object on one line; a number that JSON does not know is null."""
    return json.dumps({name: _known(value) for name, value in values.items()}, ensure_ascii=False)


def _known(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _known(item) for name, item in value.items()}
    return value
