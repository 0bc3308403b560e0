"""Translating and scoring from Python: ``from nmt_async import Translator, Scorer``.

The commands ``translate`` and ``score`` do the same by the same classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from nmt_async.checkpoints.model_folder import LoadedModel
from nmt_async.errors import UserError, shown
from nmt_async.options import check_together
from nmt_async.score.scoring import LineScorer, Pair, Scored, ScoringOptions
from nmt_async.search.ensemble import Weights, load_models
from nmt_async.search.options import Scores
from nmt_async.search.sampling_method import SamplingMethod
from nmt_async.translate.engine import ENGINES, engine_named
from nmt_async.translate.options import DecodingOptions, use_device
from nmt_async.translate.translator import LineTranslator, Translation, warn_on_stderr

ModelPath = str | os.PathLike[str]
"""The folder of a run or of a checkpoint."""


class SearchArguments(TypedDict, total=False):
    """The options of ``nmt-async translate`` that may differ from call to call (see its ``--help``)."""

    beam_size: int
    normalize: float
    word_penalty: float
    allow_unk: bool
    min_target_length: int
    max_target_length: int | None
    min_length_factor: float
    max_length_factor: float
    no_repeat_ngram_size: int
    output_sampling: SamplingMethod | str | None
    seed: int
    max_length: int
    precision: str
    mini_batch: int
    mini_batch_words: int
    maxi_batch: int


class ScoringArguments(TypedDict, total=False):
    """The options of ``nmt-async score`` that may differ from call to call (see its ``--help``)."""

    normalize: float
    word_penalty: float
    max_length: int
    mini_batch: int
    mini_batch_words: int
    maxi_batch: int


class Translator:
    """Translates with a trained model, or with several as one.

    >>> translator = Translator("run")                                     # doctest: +SKIP
    >>> translator.translate(["A dog runs."], beam_size=5)[0].text         # doctest: +SKIP
    'Ein Hund läuft.'

    Args:
        model: the folder of a run or of a checkpoint, or several.
        weights: of several models' log-probabilities; None: all the same, with the sum 1.
        device: ``cpu``, ``cuda`` or, for example, ``cuda:1``.
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
        device: str = "cpu",
        threads: int | None = None,
        engine: str = "torch",
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        if engine not in ENGINES:
            raise UserError(f"engine {shown(engine)} is not known; choose one of {', '.join(ENGINES)}.")
        self.engine = engine
        self.options = DecodingOptions(device=device, threads=threads)
        self.device = use_device(self.options)
        self.loaded = _loaded(model, weights, "--weights")
        self.warn = warn

    def translate(
        self,
        lines: Iterable[str],
        *,
        n_best: int = 1,
        alignment: bool = False,
        prefixes: Iterable[str] | None = None,
        **options: Unpack[SearchArguments],
    ) -> list[Translation]:
        """A translation of each line, in their order; a line without words gives an empty one.

        Args:
            n_best: candidates for each line, at most the beam's size.
            alignment: candidates come with alignments.
            prefixes: how the translation of each line begins; empty where that is free.
            options: as ``nmt-async translate`` has them; their defaults are the same.

        Raises:
            UserError: an option that makes no sense.
        """
        lines = list(_lines(lines))
        return list(self.stream(lines, n_best=n_best, alignment=alignment, prefixes=prefixes, **options))

    def stream(
        self,
        lines: Iterable[str],
        *,
        n_best: int = 1,
        alignment: bool = False,
        prefixes: Iterable[str] | None = None,
        at_hand: bool = False,
        **options: Unpack[SearchArguments],
    ) -> Iterator[Translation]:
        """As `translate`, in constant memory: the first translations come before the last line is read.

        Args:
            at_hand: no line has to be waited for, as none of a file has; else what is there is translated at once.
        """
        how = options.get("output_sampling")
        if isinstance(how, str):
            options["output_sampling"] = SamplingMethod.parse(how)
        changed = replace(self.options, **options)  # type: ignore[arg-type]
        check_together(changed)
        translator = self.line_translator(changed, n_best, alignment)
        begun = None if prefixes is None else _lines(prefixes)
        return translator.translate(_lines(lines), at_hand or isinstance(lines, Sequence), begun)

    def line_translator(
        self,
        options: DecodingOptions,
        n_best: int = 1,
        alignment: bool = False,
        scores: Scores = Scores.OF_SUBWORDS,
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
        return LineTranslator(model, source, target, options, self.device, n_best, self.warn, alignment, engine)


class Scorer:
    """Says how probable translations are to a trained model, or to several as one.

    >>> Scorer("run").score(["A dog runs."], ["Ein Hund läuft."])[0].score   # doctest: +SKIP
    -1.7

    Args: as `Translator` has them.
    """

    def __init__(
        self,
        model: ModelPath | Sequence[ModelPath],
        *,
        weights: Weights | Sequence[float] | str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        warn: Callable[[str], None] = warn_on_stderr,
    ) -> None:
        self.options = ScoringOptions(device=device, threads=threads)
        self.device = use_device(self.options)
        self.loaded = _loaded(model, weights, "--model-weights")
        self.warn = warn

    def score(
        self, sources: Iterable[str], targets: Iterable[str], **options: Unpack[ScoringArguments]
    ) -> list[Scored]:  # fmt: skip
        """What the model thinks of each target as the translation of its source, in their order.

        Args:
            options: as ``nmt-async score`` has them; their defaults are the same.

        Raises:
            ValueError: there are more sources than targets, or fewer.
            UserError: an option that makes no sense.
        """
        return list(self.stream(list(zip(_lines(sources), _lines(targets), strict=True)), **options))

    def stream(
        self, pairs: Iterable[Pair], *, at_hand: bool = False, **options: Unpack[ScoringArguments]
    ) -> Iterator[Scored]:  # fmt: skip
        """As `score`, in constant memory; ``at_hand`` as in `Translator.stream`."""
        return self.line_scorer(replace(self.options, **options)).score(pairs, at_hand)

    def line_scorer(
        self, options: ScoringOptions, in_pieces: bool = False, sides: tuple[str, str] = ("source", "target")
    ) -> LineScorer:  # fmt: skip
        """What scores pairs with these options (its device and threads are the scorer's); see `LineScorer`."""
        model, source, target = self.loaded.model, self.loaded.source_vocabulary, self.loaded.target_vocabulary
        return LineScorer(model, source, target, options, self.device, in_pieces, sides, self.warn)


def _loaded(
    model: ModelPath | Sequence[ModelPath], weights: Weights | Sequence[float] | str | None, flag: str
) -> LoadedModel:  # fmt: skip
    folders = [Path(folder) for folder in ([model] if isinstance(model, str | os.PathLike) else model)]
    if not folders:
        raise UserError("there is no model; name one or more.")
    if weights is not None and not isinstance(weights, Weights):
        weights = Weights.parse(weights if isinstance(weights, str) else " ".join(map(str, weights)))
    return load_models(folders, weights, flag)


def _lines(lines: Iterable[str]) -> Iterable[str]:
    if isinstance(lines, str | bytes):
        raise TypeError(f"lines are a list or another iterable of str, not one {type(lines).__name__}: give [line]")
    return map(_line, lines)


def _line(line: str) -> str:
    if not isinstance(line, str):
        raise TypeError(f"{shown(line)} is no line: give str, not {type(line).__name__}")
    return line
