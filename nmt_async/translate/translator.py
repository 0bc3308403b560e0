"""From lines to lines: subwords, batches sorted by length, search, text; input order kept, one line out for each in.

`Translator` is Python's: ``from nmt_async import Translator``. The command ``translate`` does the same by the same
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from nmt_async.devices import all_gpus, check_here, device_named
from nmt_async.errors import UserError, shown
from nmt_async.model.linear import not_in_int8, packed
from nmt_async.model.packed_matrix import on_device
from nmt_async.model.translation_model import TranslationModel, evaluating
from nmt_async.search import Hypothesis, ModelPath, Weights, beam_search, greedy_search, load_models, sample
from nmt_async.search.options import GREEDY
from nmt_async.text.batch import pad
from nmt_async.text.corpora import tagged
from nmt_async.text.vocabulary import END, Vocabulary
from nmt_async.translate.engine import Engine, engine_named, on_gpus
from nmt_async.translate.formats import WantedScores
from nmt_async.translate.lines import checked_lines, one_line, warn_on_stderr, windows
from nmt_async.translate.options import ENGINES, ComputingOptions, DecodingOptions, changed_options

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
    """What became of a line: its candidates, best first; a line without words has the one candidate ``""``.

    Attributes:
        cut: the line was too long, and only its beginning was translated.
    """

    n_best: tuple[Candidate, ...]
    cut: bool = False

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

MOST_AT_ONCE = 4
"""Batches; Python runs one thread at a time, between the operations of torch, so more of them would wait for it."""

T = TypeVar("T")

NOTHING = Translation((Candidate("", 0.0, 0.0),))


class LineTranslator:
    """A model with its vocabularies and one way to search.

    Args:
        model: moved to ``device``.
        device: where to compute.
        wanted: candidates for each line, at most the beam's size.
        warn: called with a sentence for each line that is cut.
        alignment: candidates come with alignments.
        engine: what searches for those whose beginning is free; our own search does the rest.
        computed: called after each batch of our own search.
        scores: that candidates come with; others may be nan.

    Raises:
        UserError: this model, or device, cannot compute in the precision of the options, or its vocabulary has no such
            subword as their tag.
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
        computed: Callable[[], None] = lambda: None,
        scores: WantedScores = WantedScores.OF_SUBWORDS,
    ) -> None:
        self.model = on_device(model, device)
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.options = options
        self.search = options.search(wanted, alignment)
        self.device = device
        self.warn = warn
        self.engine = engine
        self.computed = computed
        self.scores = scores
        self._tag_length = length_of_tag(options.tag, source_vocabulary)
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
        cut = set()
        for index, ids in zip(worded, self._encode([lines[index] for index in worded]), strict=True):
            if len(ids) > self.options.max_length:
                self.warn(
                    f"line {first + index:,} has {len(ids):,} subwords and is cut to {self.options.max_length:,}."
                )
                ids = [*ids[: self.options.max_length - 1], END]
                cut.add(index)
            if len(ids) > 1 + self._tag_length:
                rows.append((index, ids))
        rows.sort(key=lambda row: len(row[1]), reverse=True)
        with evaluating(self.model):
            for index, hypotheses in self._searched(rows, begun):
                translations[index] = Translation(tuple(map(self._candidate, hypotheses)), index in cut)
        return translations

    def _searched(
        self, rows: list[tuple[int, list[int]]], begun: Sequence[BegunLine]
    ) -> Iterator[tuple[int, list[Hypothesis]]]:  # fmt: skip
        """The index of each row and its hypotheses, in any order."""
        rest = rows
        if self.engine is not None:
            free = [row for row in rows if not begun[row[0]][1]]
            answers = zip(free, self.engine([[ids for _, ids in batch] for batch in self._batches(free)]), strict=True)
            searched = {index: hypotheses for (index, _), hypotheses in answers if hypotheses}
            yield from searched.items()
            rest = [row for row in rows if row[0] not in searched]
        precision = self.options.precision
        worth_it = len(rest) >= WORTH_PACKING or precision != "float32"
        batches = list(self._batches(rest))
        texts = [([ids for _, ids in batch], [begun[index][1] for index, _ in batch]) for batch in batches]
        with (
            packed(self.model, precision) if worth_it else nullcontext(),
            closing(side_by_side(self._search, texts, self.device)) as results,
        ):
            for batch, found in zip(batches, results, strict=True):
                self.computed()
                yield from ((index, hypotheses) for (index, _), hypotheses in zip(batch, found, strict=True))

    def _encode(self, lines: list[str]) -> list[list[int]]:
        tag = self.options.tag or ""
        return self.source_vocabulary.encode_lines([tagged(tag, line) for line in lines]) if lines else []

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
        find = beam_search
        if self.search.output_sampling is not None:
            find = sample
        elif self.search.beam_size == GREEDY:
            find = partial(greedy_search, scored=self.scores > WantedScores.NONE)
        return find(self.model, source.to(self.device), lengths.to(self.device), self.search, prefixes)

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        text = one_line(self.target_vocabulary.decode(hypothesis.ids))
        tokens = self.target_vocabulary.pieces(hypothesis.ids)
        return Candidate(
            text, hypothesis.score, hypothesis.normalised, tokens, hypothesis.token_scores, hypothesis.alignment
        )  # fmt: skip


def side_by_side(
    work: Callable[..., T], arguments: Sequence[tuple[Any, ...]], device: torch.device
) -> Generator[T, None, None]:  # fmt: skip
    """What ``work`` makes of each of ``arguments``, in their order; on a CPU several are worked on at once, each with
    its share of the threads: two threads do more on two batches than both on one.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    at_once = min(threads, len(arguments), MOST_AT_ONCE)
    if at_once < 2:
        yield from (work(*each) for each in arguments)
        return
    pool = ThreadPoolExecutor(at_once, "batch", torch.set_num_threads, (threads // at_once,))
    try:
        yield from (future.result() for future in [pool.submit(work, *each) for each in arguments])
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # those of the pool set them for all that come after them


def length_of_tag(tag: str | None, source_vocabulary: Vocabulary) -> int:
    """How many subwords the tag before a line takes; 0 where there is none.

    Raises:
        UserError: the model has no such subword.
    """
    if tag is None:
        return 0
    try:
        return len(source_vocabulary.tag(tag))
    except UserError as error:
        raise UserError(f"--tag: {error}") from None


class Translator:
    """Translates with a trained model, or with several as one.

    >>> translator = Translator("run")                                     # doctest: +SKIP
    >>> translator.translate(["A dog runs."], beam_size=5)[0].text         # doctest: +SKIP
    'Ein Hund läuft.'

    Args:
        model: the folder of a run or of a checkpoint, or several.
        weights: of several models' log-probabilities; None: all the same, with the sum 1.
        device: ``cpu``, ``cuda`` or, for example, ``cuda:1``; None: the first GPU there is, else the CPU.
        threads: CPU threads of this process from here on (else as many as torch has).
        engine: ``torch``, ``ctranslate2`` or ``auto``; see `nmt_async.translate.engine`.
        warn: called with a sentence for each line that is cut; by default they go to standard error.

    Raises:
        UserError: there is no such model or device, a file is damaged, or models do not go together.
    """

    def __init__(
        self,
        model: ModelPath | Sequence[ModelPath],
        *,
        weights: Weights | Sequence[float] | str | None = None,
        device: str | None = None,
        threads: int | None = None,
        engine: str = "torch",
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        if engine not in ENGINES:
            raise UserError(f"engine {shown(engine)} is not known; choose one of {', '.join(ENGINES)}.")
        self.engine = engine
        self.options = DecodingOptions(device=device or default_devices(engine=engine)[0], threads=threads)
        self.device = use_device(self.options)
        self.loaded = load_models(model, weights)
        self.warn = warn

    def translate(
        self,
        lines: Iterable[str],
        *,
        n_best: int = 1,
        alignment: bool = False,
        prefixes: Iterable[str] | None = None,
        **options: Any,
    ) -> list[Translation]:
        """A translation of each line, in their order; a line without words gives an empty one.

        Args:
            n_best: candidates for each line, at most the beam's size.
            alignment: candidates come with alignments.
            prefixes: how the translation of each line begins; empty where that is free.
            options: fields of `DecodingOptions`, as ``nmt-async translate`` has them; their defaults are the same.

        Raises:
            UserError: an option that makes no sense, or means nothing beside the others.
            TypeError: there is no such option, or it belongs to the model: device, threads, weights.
        """
        lines = list(checked_lines(lines))
        return list(self.stream(lines, n_best=n_best, alignment=alignment, prefixes=prefixes, **options))

    def stream(
        self,
        lines: Iterable[str],
        *,
        n_best: int = 1,
        alignment: bool = False,
        prefixes: Iterable[str] | None = None,
        at_hand: bool = False,
        **options: Any,
    ) -> Iterator[Translation]:
        """As `translate`, in constant memory: the first translations come before the last line is read.

        Args:
            at_hand: no line has to be waited for, as none of a file has; else what is there is translated at once.
        """
        changed = changed_options(self.options, options)
        translator = self.line_translator(changed, n_best, alignment)
        begun = None if prefixes is None else checked_lines(prefixes)
        return translator.translate(checked_lines(lines), at_hand or isinstance(lines, Sequence), begun)

    def line_translator(
        self,
        options: DecodingOptions,
        n_best: int = 1,
        alignment: bool = False,
        scores: WantedScores = WantedScores.OF_SUBWORDS,
    ) -> LineTranslator:
        """What translates lines with these options (its device, threads and weights are the translator's).

        Args:
            scores: that candidates come with, whatever the engine.
        """
        model, source, target = self.loaded.model, self.loaded.source_vocabulary, self.loaded.target_vocabulary
        if n_best < 1:
            raise UserError(f"n_best: {n_best} is too small; give 1 or more.")
        search = options.search(n_best, alignment)
        engine = engine_named(
            self.engine, self.loaded, search, self.device, self.warn, options.precision, scores
        )  # fmt: skip
        return LineTranslator(
            model, source, target, options, self.device, n_best, self.warn, alignment, engine, scores=scores
        )  # fmt: skip


def use_device(options: ComputingOptions) -> torch.device:
    """The device the options name, else the first GPU or the CPU; from here on this process computes with as many CPU
    threads as they say.

    Raises:
        UserError: there is no such device.
    """
    device = all_gpus()[0] if options.device is None else device_named(options.device, "--device")
    check_here([device], "--device")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return torch.device(device)


def default_devices(precision: str = "float32", engine: str = "torch") -> list[str]:
    """Where translations are computed if nobody says it: on all GPUs that can do it, else on the CPU."""
    if precision != "float32":  # packed weights are the CPU's
        return ["cpu"]
    devices = all_gpus()
    return devices if engine == "torch" or devices == ["cpu"] or on_gpus() else ["cpu"]
