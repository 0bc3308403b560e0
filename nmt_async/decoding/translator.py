"""From lines to lines: subwords, batches sorted by length, search, text; input order kept, one line out for each in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from nmt_async.decoding.beam import Hypothesis
from nmt_async.decoding.engine import Engine, Rows, search_rows
from nmt_async.decoding.lines import one_line, windows
from nmt_async.decoding.options import DecodingOptions
from nmt_async.errors import UserError
from nmt_async.model.decoder_state import TranslationModel
from nmt_async.model.linear import packed, packs_model
from nmt_async.text.batch import END
from nmt_async.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """One translation of a line.

    Attributes:
        text: without line breaks.
        score: summed log-probability in nats.
        normalised: the score divided by length^alpha; what candidates are ranked by.
    """

    text: str
    score: float
    normalised: float


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


WORTH_PACKING = 64
"""Lines; packing the weights takes about as long as translating a few."""

NOTHING = Translation((Candidate("", 0.0, 0.0),))


def warn_on_stderr(message: str) -> None:
    """Where a translator's warnings go if nobody says otherwise."""
    print(f"nmt-async: {message}", file=sys.stderr)


class Translator:
    """A model with its vocabularies and the way to search.

    Args:
        model: moved to ``device``.
        device: where to compute.
        wanted: candidates for each line, at most the beam's size.
        warn: called with a sentence for each line that is cut.
        engine: what searches; None for our own.

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
        engine: Engine | None = None,
    ) -> None:
        self.model = model.to(device)
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.options = options
        self.search = options.search(wanted)
        self.device = device
        self.warn = warn
        self.engine = engine or self._search
        if options.precision != "float32" and engine is None and not packs_model(self.model, options.precision):
            raise UserError(
                f"--precision {options.precision}: only Transformers, on a CPU, compute in it here; leave it out."
            )

    def translate(self, lines: Iterable[str]) -> Iterator[Translation]:
        """A translation of each line, in their order; first ones come before the last line is read."""
        first = 1
        for window in windows(lines, self.options.mini_batch * self.options.maxi_batch):
            yield from self._translate_window(window, first)
            first += len(window)

    def _translate_window(self, lines: list[str], first: int) -> list[Translation]:
        """The translations of lines that are numbered from ``first``."""
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
        training = self.model.training
        self.model.eval()
        try:
            batches = list(self._batches(rows))
            precision = self.options.precision
            with packed(self.model, precision) if self._worth_packing(len(rows)) else nullcontext():
                searched = self.engine([[ids for _, ids in batch] for batch in batches])
            for batch, found in zip(batches, searched, strict=True):
                for (index, _), hypotheses in zip(batch, found, strict=True):
                    translations[index] = Translation(tuple(map(self._candidate, hypotheses)))
        finally:
            self.model.train(training)
        return translations

    def _worth_packing(self, lines: int) -> bool:
        if self.engine != self._search:
            return False
        return self.options.precision != "float32" or lines >= WORTH_PACKING

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

    def _search(self, batches: Sequence[Rows]) -> list[list[list[Hypothesis]]]:
        return [search_rows(self.model, rows, self.search, self.device) for rows in batches]

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        text = one_line(self.target_vocabulary.decode(hypothesis.ids))
        return Candidate(text, hypothesis.score, hypothesis.normalised)


def n_best_lines(number: int, translation: Translation) -> list[str]:
    """The candidates of the line ``number`` (from 0) in the form of Marian's ``--n-best``."""
    return [
        f"{number} ||| {candidate.text} ||| F0= {candidate.score:.6f} ||| {candidate.normalised:.6f}"
        for candidate in translation.n_best
    ]
