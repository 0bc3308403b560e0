"""How translations and scores are written: plain text in Marian's forms, tab-separated values, or JSON, a line each.

Tab-separated and in JSON, lines are counted from 1, as in messages; Marian's n-best lists count from 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_async.decoding.filtering import DualScore
from nmt_async.decoding.scoring import Scored
from nmt_async.decoding.translator import Candidate, Translation

FORMATS = ("text", "tsv", "jsonl")


def translation_lines(number: int, translation: Translation, form: str, n_best: bool, words: bool) -> list[str]:
    """What is printed of the line ``number``, counted from 1.

    Args:
        n_best: print all candidates.
        words: print the subwords and their scores.
    """
    candidates = translation.n_best if n_best else translation.n_best[:1]
    if form == "jsonl":
        values = {"line": number, **_candidate_values(candidates[0], words)}
        if n_best:
            values["n_best"] = [_candidate_values(candidate, words) for candidate in candidates]
        return [json_line(values)]
    if form == "tsv":
        return ["\t".join(_candidate_fields(number, rank, found, words)) for rank, found in enumerate(candidates, 1)]
    return [_text_line(number, candidate, n_best, words) for candidate in candidates]


def _candidate_values(candidate: Candidate, words: bool) -> dict[str, Any]:
    values = {"translation": candidate.text, "score": candidate.score, "normalised": candidate.normalised}
    return values | (words_of(candidate.tokens, candidate.token_scores) if words else {})


def _candidate_fields(number: int, rank: int, candidate: Candidate, words: bool) -> list[str]:
    text = candidate.text.replace("\t", " ")
    fields = [str(number), str(rank), text, f"{candidate.score:.6f}", f"{candidate.normalised:.6f}"]
    return fields + (word_fields(candidate.tokens, candidate.token_scores) if words else [])


def _text_line(number: int, candidate: Candidate, n_best: bool, words: bool) -> str:
    """As Marian prints it: with ``--n-best`` with its number, from 0, and its scores."""
    fields = [str(number - 1), candidate.text] if n_best else [candidate.text]
    if words:
        fields.append(marian_word_scores(candidate.token_scores))
    if n_best:
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
