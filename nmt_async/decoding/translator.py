"""From lines to lines: subwords, batches sorted by length, search, text; input order kept, one line out for each in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from nmt_async.decoding.beam import Hypothesis, beam_search
from nmt_async.decoding.engine import Engine
from nmt_async.decoding.lines import one_line, windows
from nmt_async.decoding.options import DecodingOptions
from nmt_async.decoding.sampling import sample
from nmt_async.errors import UserError
from nmt_async.model.decoder_state import TranslationModel, evaluating
from nmt_async.model.linear import not_in_int8, packed
from nmt_async.text.batch import END, pad
from nmt_async.text.vocabulary import Vocabulary

BegunLine = tuple[str, str]
"""A line and how its translation begins, which may be with nothing."""


@dataclass(frozen=True)
class Candidate:
    """One translation of a line.

    Attributes:
        text: without line breaks.
        score: summed log-probability in nats; nan where nobody asked CTranslate2 for it.
        normalised: the score divided by length^alpha; what candidates are ranked by.
        tokens: its subwords.
        token_scores: log-probability of each, then of the end mark; empty where nothing was computed.
        alignment: for each subword, then the end mark, what share of attention each of the source's subwords and its
            end mark had; None where not asked for, or nothing was computed.
    """

    text: str
    score: float
    normalised: float
    tokens: tuple[str, ...] = ()
    token_scores: tuple[float, ...] = ()
    alignment: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Translation:
    """What became of a line: its candidates, best first; a line without words has the one candidate ``""``."""

    n_best: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The best candidate's."""
        return self.n_best[0].text

    @property
    def score(self) -> float:
        """The best candidate's, normalised."""
        return self.n_best[0].normalised


WORTH_PACKING = 4
"""Lines; packing the weights takes about as long as it saves in translating one or two."""

NOTHING = Translation((Candidate("", 0.0, 0.0),))


def warn_on_stderr(message: str) -> None:
    """Where a translator's warnings go if nobody says otherwise."""
    print(f"nmt-async: {message}", file=sys.stderr)


class LineTranslator:
    """A model with its vocabularies and one way to search.

    Args:
        model: moved to ``device``.
        device: where to compute.
        wanted: candidates for each line, at most the beam's size.
        warn: called with a sentence for each line that is cut.
        alignment: candidates come with alignments.
        engine: what searches for those whose beginning is free; our own search does the rest.

    Raises:
        UserError: this model, or device, cannot compute in the precision of the options.
    """

    def __init__(
        self,
        model: TranslationModel,
        source_vocabulary: Vocabulary,
        target_vocabulary: Vocabulary,
        options: DecodingOptions,
        device: torch.device,
        wanted: int = 1,
        warn: Callable[[str], None] = warn_on_stderr,
        alignment: bool = False,
        engine: Engine | None = None,
    ) -> None:
        self.model = model.to(device)
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.options = options
        self.search = options.search(wanted, alignment)
        self.device = device
        self.warn = warn
        self.engine = engine
        if options.precision == "int8" and engine is None and (reason := not_in_int8(self.model)) is not None:
            raise UserError(f"--precision int8: {reason}; leave it out.")

    def translate(
        self, lines: Iterable[str], at_hand: bool = False, prefixes: Iterable[str] | None = None
    ) -> Iterator[Translation]:  # fmt: skip
        """A translation of each line, in their order; first ones come before the last line is read.

        Args:
            at_hand: no line has to be waited for (see `windows`).
            prefixes: how the translation of each line begins; empty where that is free.
        """
        begun = ((line, "") for line in lines) if prefixes is None else zip(lines, prefixes, strict=True)
        at_hand = at_hand or isinstance(lines, Sequence)
        first = 1
        for window in windows(begun, self.options.mini_batch * self.options.maxi_batch, at_hand):
            yield from self.translate_window(window, first)
            first += len(window)

    def translate_window(self, begun: Sequence[BegunLine], first: int = 1) -> list[Translation]:
        """The translations of lines that are numbered from ``first``."""
        lines = [line for line, _ in begun]
        translations = [NOTHING] * len(lines)
        worded = [index for index, line in enumerate(lines) if line.strip()]
        rows: list[tuple[int, list[int]]] = []
        for index, ids in zip(worded, self._encode([lines[index] for index in worded]), strict=True):
            if len(ids) > self.options.max_length:
                self.warn(
                    f"line {first + index:,} has {len(ids):,} subwords and is cut to {self.options.max_length:,}."
                )
                ids = [*ids[: self.options.max_length - 1], END]
            if len(ids) > 1:
                rows.append((index, ids))
        rows.sort(key=lambda row: len(row[1]), reverse=True)
        with evaluating(self.model):
            for index, hypotheses in self._searched(rows, begun):
                translations[index] = Translation(tuple(map(self._candidate, hypotheses)))
        return translations

    def _searched(
        self, rows: list[tuple[int, list[int]]], begun: Sequence[BegunLine]
    ) -> Iterator[tuple[int, list[Hypothesis]]]:  # fmt: skip
        """The index of each row and its hypotheses, in any order."""
        rest = rows
        if self.engine is not None:
            free = [row for row in rows if not begun[row[0]][1]]
            batches = [[ids for _, ids in batch] for batch in self._batches(free)]
            answers = zip(free, self.engine(batches), strict=True)
            searched = {index: hypotheses for (index, _), hypotheses in answers if hypotheses}
            yield from searched.items()
            rest = [row for row in rows if row[0] not in searched]
        precision = self.options.precision
        worth_it = len(rest) >= WORTH_PACKING or precision != "float32"
        with packed(self.model, precision) if worth_it else nullcontext():
            for batch in self._batches(rest):
                found = self._search([ids for _, ids in batch], [begun[index][1] for index, _ in batch])
                yield from ((index, hypotheses) for (index, _), hypotheses in zip(batch, found, strict=True))

    def _encode(self, lines: list[str]) -> list[list[int]]:
        return self.source_vocabulary.encode_lines(lines) if lines else []

    def _batches(self, rows: list[tuple[int, list[int]]]) -> Iterator[list[tuple[int, list[int]]]]:
        """Rows, longest first, in batches within the limits of sentences and padded subwords."""
        begin = 0
        while begin < len(rows):
            fitting = self.options.mini_batch_words // len(rows[begin][1])
            end = begin + max(1, min(self.options.mini_batch, fitting))
            yield rows[begin:end]
            begin = end

    @torch.inference_mode()
    def _search(self, rows: list[list[int]], beginnings: list[str]) -> list[list[Hypothesis]]:
        source, lengths = pad(rows)
        prefixes = None
        if any(beginnings):
            prefixes = [ids[:-1] for ids in self.target_vocabulary.encode_lines(beginnings)]
        find = beam_search if self.search.sampling is None else sample
        return find(self.model, source.to(self.device), lengths.to(self.device), self.search, prefixes)

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        text = one_line(self.target_vocabulary.decode(hypothesis.ids))
        tokens = self.target_vocabulary.pieces(hypothesis.ids)
        return Candidate(
            text, hypothesis.score, hypothesis.normalised, tokens, hypothesis.token_scores, hypothesis.alignment
        )  # fmt: skip
