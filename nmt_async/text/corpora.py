"""Several corpora in one declaration (``prepare --corpora FILE``), and what a prepared folder knows of them.

    temperature: 5
    corpora:
      - name: news
        source: [text/news-1.en.gz, text/news-2.en.gz]
        target: [text/news-1.id.gz, text/news-2.id.gz]
        valid-source: text/news.valid.en
        valid-target: text/news.valid.id
        tag: __news__
        weight: 2

``name``, ``source`` and ``target`` are needed. A ``tag`` is put before each source line of the corpus, as a word: the
model can tell by it which domain a line is of (Kobus et al. 2017, arXiv:1612.06140). ``weight`` is the corpus's share
in an epoch (`nmt_async.text.mixture`), and ``temperature`` makes weights of the sizes of all; a file has one or the
other. Paths are those of the folder in which the command runs, as in every file of options.

A prepared folder holds the corpora one behind the other, so that ``corpora.json`` needs no more than their sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt_async.errors import UserError, shown
from nmt_async.options import load_yaml
from nmt_async.reading import as_dataclass
from nmt_async.text.corpus import AlignedFiles, Corpus, InputFile, input_files
from nmt_async.text.mixture import (
    NAME,
    CorpusWeights,
    Mixture,
    checked_temperature,
    checked_weight,
    weights_at,
)

OPTION = "--corpora"
KEYS = ("name", "source", "target", "valid-source", "valid-target", "tag", "weight")
LONGEST_TAG = 60
"""Characters."""


@dataclass(frozen=True)
class NamedCorpus:
    """Text to train on, and to validate with.

    Attributes:
        name: empty where the text is not divided into corpora.
        train, valid: its files; none for validation where it takes no part in that.
        tag: the word before each of its source lines; empty for none.
        weight: its share in an epoch; None: nobody gave one.
    """

    name: str
    train: Corpus
    valid: Corpus
    tag: str = ""
    weight: float | None = None


@dataclass(frozen=True)
class Declaration:
    """Corpora, in the order in which they are declared.

    Attributes:
        temperature: that makes their weights; None: nobody gave one.
    """

    corpora: tuple[NamedCorpus, ...]
    temperature: float | None = None


def tagged(tag: str, line: str) -> str:
    """The source line as the model reads it; one without words stays as it is."""
    return f"{tag} {line}" if tag and line.strip() else line


def read_corpora(path: Path) -> Declaration:
    """The declaration in ``path``, its files looked at.

    Raises:
        UserError: it is not one, or a file cannot be read; the sentence names the corpus.
    """
    values = load_yaml(path)
    for key in values:
        if key not in ("corpora", "temperature"):
            raise UserError(f"{OPTION}: {path}: no key is called {shown(key)}; there are corpora, temperature.")
    listed = values.get("corpora")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{OPTION}: {path}: 'corpora:' must be a list, each corpus with name, source and target.")
    found: list[NamedCorpus] = []
    for number, described in enumerate(listed, 1):
        corpus = _corpus(path, number, described)
        if corpus.name in {other.name for other in found}:
            raise UserError(f"{OPTION}: {path}: two corpora are called {corpus.name}; give one another name.")
        found.append(corpus)
    return Declaration(tuple(found), _temperature(path, values.get("temperature"), found))


def _temperature(path: Path, value: Any, corpora: Sequence[NamedCorpus]) -> float | None:
    weighted = [corpus for corpus in corpora if corpus.weight is not None]
    if weighted and len(weighted) < len(corpora):
        missing = next(corpus.name for corpus in corpora if corpus.weight is None)
        raise UserError(f"{OPTION}: {path}: {missing} has no weight; give each corpus one, or none of them.")
    if weighted and not any(corpus.weight for corpus in weighted):
        raise UserError(f"{OPTION}: {path}: the weights sum to nothing; give at least one corpus one above 0.")
    if value is None:
        return None
    if weighted:
        raise UserError(f"{OPTION}: {path}: the temperature makes weights of sizes; leave it out, or the weights.")
    return checked_temperature(_number(f"{OPTION}: {path}: temperature", value))


def _corpus(path: Path, number: int, values: Any) -> NamedCorpus:
    where = f"{OPTION}: {path}, corpus {number}"
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a mapping, with name, source and target.")
    for key in values:
        if key not in KEYS:
            raise UserError(f"{where}: no key is called {shown(key)}; there are {', '.join(KEYS)}.")
    name = values.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{where}: name {shown(name)} is not of letters, digits, '.', '-' and '_', at most 60.")
    where = f"{OPTION}: {path}, {name}"
    train = _aligned(where, name, values, "source", "target")
    if not train:
        raise UserError(f"{where}: source and target are missing; name the files of its text.")
    weight = values.get("weight")
    if weight is not None:
        try:
            weight = checked_weight(_number("weight", weight))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return NamedCorpus(
        name,
        train,
        _aligned(where, name, values, "valid-source", "valid-target"),
        _tag(where, values.get("tag")),
        weight,
    )


def _aligned(where: str, name: str, values: Mapping[str, Any], source: str, target: str) -> Corpus:
    """The files that two keys name, each source with its target."""
    sides = [[InputFile(Path(file), f"{OPTION}, {name}, {key}") for file in _paths(where, key, values.get(key))]
             for key in (source, target)]  # fmt: skip
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{where}: {source} names {len(sides[0])} files and {target} {len(sides[1])}; give the two files of each "
            f"pair in the same order."
        )
    parts: Corpus = [AlignedFiles(*pair) for pair in zip(*sides, strict=True)]
    for file in input_files(parts):
        file.check()
    return parts


def _paths(where: str, key: str, value: Any) -> list[str]:
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise UserError(f"{where}: {key} must be the path of a file, or a list of them.")
    return list(names)


def _tag(where: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not is_tag(value):
        raise UserError(f"{where}: tag {shown(value)} is not a word without spaces, at most {LONGEST_TAG} characters.")
    return value


def is_tag(text: str) -> bool:
    """Whether it could be a tag: what a vocabulary makes of it is another question."""
    return (
        bool(text)
        and len(text) <= LONGEST_TAG
        and text.isprintable()
        and text.split() == [text]
        and "\u2581" not in text
    )


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise UserError(f"{where}: {shown(value)} is not a number.")
    return float(value)


@dataclass(frozen=True)
class PreparedCorpus:
    """What a prepared folder has of a corpus.

    Attributes:
        tag, weight: as in `NamedCorpus`.
        pairs, source_tokens, target_tokens: to train on.
        valid_pairs: to validate with.
    """

    name: str
    tag: str
    weight: float | None
    pairs: int
    source_tokens: int
    target_tokens: int
    valid_pairs: int = 0


@dataclass(frozen=True)
class PreparedCorpora:
    """The corpora of a prepared folder, which stand there one behind the other."""

    corpora: tuple[PreparedCorpus, ...]
    temperature: float | None = None

    @cached_property
    def names(self) -> list[str]:
        """Of all, in their order."""
        return [corpus.name for corpus in self.corpora]

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """(corpora,) the index behind the last pair of each."""
        return np.cumsum([corpus.pairs for corpus in self.corpora])

    def count(self, indexes: NDArray[Any]) -> NDArray[np.int64]:
        """(corpora,) how many of these sentence pairs are of each."""
        return np.bincount(np.searchsorted(self.ends, indexes, side="right"), minlength=len(self.corpora))

    def summed(self, indexes: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
        """(corpora,) the sum of these pairs' ``values`` by corpus."""
        of = np.searchsorted(self.ends, indexes, side="right")
        return np.bincount(of, weights=values, minlength=len(self.corpora)).astype(np.int64)

    def mixture(
        self, fitting: NDArray[Any], weights: CorpusWeights | None = None, temperature: float | None = None
    ) -> Mixture | None:
        """How an epoch over the pairs ``fitting`` is mixed; None: of each pair once, since nobody weighs the corpora.

        Args:
            weights, temperature: of this run; None: as the corpora were declared.

        Raises:
            UserError: a corpus has no weight, there is none of a name, or one with a weight has no pair left.
        """
        sizes = self.count(fitting).tolist()
        declared = [corpus.weight for corpus in self.corpora]
        if weights is not None:
            chosen: Sequence[Any] = weights.of(self.names)
        elif (asked := self.temperature if temperature is None else temperature) is not None:
            chosen = weights_at(asked, sizes)
            if 0 in sizes:
                name = self.names[sizes.index(0)]
                raise UserError(
                    f"no training pair of {name} is short enough; raise --max-length, or give weights, and it weight 0."
                )
        elif None not in declared:
            chosen = declared
        else:
            return None
        for name, size, weight in zip(self.names, sizes, chosen, strict=True):
            if weight and not size:
                raise UserError(f"no training pair of {name} is short enough; raise --max-length, or give it weight 0.")
        return Mixture.of(sizes, chosen)

    def as_mapping(self) -> dict[str, Any]:
        """The object for ``corpora.json``."""
        return {"temperature": self.temperature, "corpora": [asdict(corpus) for corpus in self.corpora]}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], pairs: int) -> PreparedCorpora:
        """Of what `as_mapping` made, in a folder of so many training pairs.

        Raises:
            TypeError, ValueError, UserError: it is not that, or does not fit the folder.
        """
        found = as_dataclass(cls, dict(values))
        if len(set(found.names)) < len(found.names) or not all(map(NAME.fullmatch, found.names)):
            raise ValueError("two corpora have one name, or one has none")
        if min((corpus.pairs for corpus in found.corpora), default=0) < 1 or int(found.ends[-1]) != pairs:
            raise ValueError(f"its corpora do not have {pairs:,} pairs")
        weights = [corpus.weight for corpus in found.corpora if corpus.weight is not None]
        if weights and (len(weights) < len(found.corpora) or not sum(map(checked_weight, weights))):
            raise ValueError("the weights of its corpora cannot be")
        if found.temperature is not None:
            checked_temperature(found.temperature)
        return found
