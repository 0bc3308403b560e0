"""How translations and scores are written: plain text in Marian's forms, tab-separated values, or JSON, a line each.

Tab-separated and in JSON, lines are counted from 1, as in messages; Marian's n-best lists count from 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt_async.score.filtering import DualScore
from nmt_async.score.scoring import Scored
from nmt_async.search.options import Scores
from nmt_async.translate.alignment import AlignmentForm, links
from nmt_async.translate.translator import Candidate, Translation

FORMATS = ("text", "tsv", "jsonl")


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
    def scores(self) -> Scores:
        """Which must be known for it."""
        if self.words:
            return Scores.OF_SUBWORDS
        return Scores.NONE if self.form == "text" and not self.n_best else Scores.OF_TRANSLATIONS

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


def scored_line(number: int, scored: Scored, form: str, normalised: bool, words: bool) -> str:
    """What is printed of the pair ``number``, counted from 1.

    Args:
        normalised: print, as text, the normalised score.
        words: print the subwords and their scores.
    """
    if form == "jsonl":
        values: dict[str, Any] = {"line": number, "score": scored.score, "normalised": scored.normalised}
        return json_line(values | (words_of(scored.tokens, scored.token_scores) if words else {}))
    if form == "tsv":
        fields = [str(number), f"{scored.score:.6f}", f"{scored.normalised:.6f}"]
        return "\t".join(fields + (word_fields(scored.tokens, scored.token_scores) if words else []))
    text = f"{scored.normalised if normalised else scored.score:.6f}"
    return f"{text} ||| {marian_word_scores(scored.token_scores)}" if words else text


def dual_line(number: int, dual: DualScore, form: str) -> str:
    """What is printed of the dual cross-entropy of the pair ``number``, counted from 1."""
    if form == "jsonl":
        return json_line({"line": number, "score": dual.score, "forward": dual.forward, "backward": dual.backward})
    if form == "tsv":
        return f"{number}\t{dual.score:.6f}\t{dual.forward:.6f}\t{dual.backward:.6f}"
    return f"{dual.score:.6f}"


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
