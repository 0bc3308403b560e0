"""N-best lists in Marian's form: a model's scores become one more feature, and weights rank them anew.

A line is ``NUMBER ||| TEXT ||| FEATURES ||| SCORE``: the number of the source line (from 0), the hypothesis, features
as ``F0= -1.5 LM= -20.1`` and the score that the list is sorted by. Other fields between (alignments, word scores) stay.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from nmt_async.errors import UserError, shown
from nmt_async.score.scorer import LineScorer, Pair

SEPARATOR = " ||| "
LONGEST_NUMBER = 18
"""Digits of a source line's number; Python refuses to read very many."""


@dataclass(frozen=True)
class Entry:
    """A line of the list.

    Attributes:
        place: where it stands, for messages.
        number: of its source line, from 0.
        middle: fields between the text and the features, as they stand there.
        features: as they stand there.
        score: as it stands there.
    """

    place: str
    number: int
    text: str
    middle: tuple[str, ...]
    features: str
    score: str

    def __str__(self) -> str:
        return SEPARATOR.join((str(self.number), self.text, *self.middle, self.features, self.score))

    def values(self) -> dict[str, float]:
        """Its features by name, without the equals sign; the values of one that has several are summed.

        Raises:
            UserError: they are not in the form.
        """
        values: dict[str, float] = {}
        name = None
        for word in self.features.split():
            if word.endswith("="):
                name = word[:-1]
                values[name] = 0.0
                continue
            try:
                if name is None:
                    raise ValueError
                values[name] += float(word)
            except ValueError:
                raise UserError(
                    f"{self.place}: {shown(self.features)} are not features such as 'F0= -1.5 LM= -20.1'."
                ) from None
        return values


def read_entries(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """The list's lines; ``name`` is the file's, for messages.

    Raises:
        UserError: a line is not in the form, or its number is below that of the line before.
    """
    before = 0
    for count, line in enumerate(lines, 1):
        place = f"line {count:,} of {name}"
        number, *rest = line.split(SEPARATOR)
        if len(rest) < 3 or not re.fullmatch(rf"\s*[0-9]{{1,{LONGEST_NUMBER}}}\s*", number):
            raise UserError(f"{place} is not in the form NUMBER ||| TEXT ||| FEATURES ||| SCORE of an n-best list.")
        text, *middle, features, score = rest
        entry = Entry(place, int(number), text, tuple(middle), features, score)
        if entry.number < before:
            raise UserError(
                f"{place} belongs to source line {entry.number} and comes after one of line {before}; sort the list."
            )
        before = entry.number
        yield entry


def rescore(
    entries: Iterable[Entry], sources: Iterable[str], scorer: LineScorer, feature: str, at_hand: bool = False
) -> Iterator[Entry]:
    """The entries, in their order, with the model's score as one more feature.

    Args:
        sources: the lines that the entries are translations of.
        feature: its name.
        at_hand: no line has to be waited for.

    Raises:
        UserError: there is no such source line, or a feature has that name.
    """
    read: deque[Entry] = deque()

    def pairs() -> Iterator[Pair]:
        numbered = enumerate(sources)
        number, source = -1, ""
        for entry in entries:
            while number < entry.number:
                try:
                    number, source = next(numbered)
                except StopIteration:
                    raise UserError(
                        f"{entry.place} belongs to source line {entry.number}, counted from 0, "
                        f"but --source has {number + 1:,} lines."
                    ) from None
            if feature in entry.values():
                raise UserError(f"{entry.place} has a feature {feature} already; give another --n-best-feature.")
            read.append(entry)
            yield source, entry.text

    for scored in scorer.score(pairs(), at_hand):
        entry = read.popleft()
        yield replace(entry, features=f"{entry.features} {feature}= {scored.score:.6f}".lstrip())


def ranked(entries: Iterable[Entry], weights: Mapping[str, float]) -> Iterator[Entry]:
    """The entries of each source line by the weighted sum of their features, best first; it becomes their score.

    Raises:
        UserError: an entry lacks a feature that has a weight.
    """
    for _, group in groupby(entries, key=lambda entry: entry.number):
        summed = [(_weighted(entry, weights), entry) for entry in group]
        summed.sort(key=lambda pair: -pair[0])
        for total, entry in summed:
            yield replace(entry, score=f"{total:.6f}")


def _weighted(entry: Entry, weights: Mapping[str, float]) -> float:
    values = entry.values()
    for name in weights:
        if name not in values:
            raise UserError(
                f"{entry.place} has no feature {shown(name)}, which --weights names; it has {_list(values)}."
            )
    total = sum(weight * values[name] for name, weight in weights.items())
    if not math.isfinite(total):
        raise UserError(f"{entry.place}: the weighted sum of {shown(entry.features)} is not a finite number.")
    return total


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
