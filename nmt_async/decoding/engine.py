"""Which program searches: ours in torch, or CTranslate2, where it is installed and knows the model and the options.

CTranslate2 finds what we find, with two exceptions that are translated again by our own search: lines for which it
used ``<unk>``, which we never produce (it could leave it out, but then divides its probability among the others),
and lines whose translation reached their longest length, which it knows only for a whole batch. Greedy search needs
no second one.
It also ends a search as soon as enough hypotheses have ended (see `nmt_async.decoding.beam`), so it may stop short of
what we find: 1 % of Multi30k's test2016 at a beam of 5.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from nmt_async.decoding.beam import Hypothesis
from nmt_async.decoding.model_folder import LoadedModel
from nmt_async.decoding.search import Search
from nmt_async.errors import UserError
from nmt_async.export.ctranslate2 import LONGEST, export_ctranslate2, import_ctranslate2, pieces, unsupported
from nmt_async.model.decoder_state import TranslationModel
from nmt_async.text.batch import END, UNKNOWN

ENGINES = ("torch", "ctranslate2", "auto")

NOT_UNDERSTOOD = {
    "word_penalty": "--word-penalty", "min_length": "--min-target-length", "min_length_factor": "--min-length-factor",
    "no_repeat_ngram": "--no-repeat-ngram-size", "sampling": "--output-sampling", "alignment": "--alignment",
}  # fmt: skip
"""Fields of `Search` that CTranslate2 has not, or understands otherwise than we do, and their options."""

Rows = list[list[int]]
"""Sentences as subword indexes, each with its end mark."""


class Engine(Protocol):
    """Searches for the translations of batches, the longest sentence first, each of which may be computed at once."""

    def __call__(self, batches: Sequence[Rows]) -> list[list[Hypothesis]]:
        """For each sentence of each batch its translations, best first; nothing if our own search is to do it."""


def engine_named(
    name: str,
    loaded: LoadedModel,
    search: Search,
    device: torch.device,
    warn: Callable[[str], None],
    precision: str = "float32",
    token_scores: bool = False,
) -> Engine | None:
    """The engine called ``name``, one of `ENGINES`; None for our own.

    Args:
        warn: told in a sentence if ``auto`` falls back to torch.
        token_scores: hypotheses come with them, for which CTranslate2 has to score what it found.

    Raises:
        UserError: ``ctranslate2`` is asked for where it is not installed, or does not know the model or an option.
    """
    if name == "torch":
        return None
    reason = _unfit(loaded, search, device)
    if reason is None:
        return CTranslate2Engine(loaded, search, device, precision, token_scores)
    if name == "ctranslate2":
        raise UserError(f"--engine ctranslate2: {reason}; give --engine torch, or auto.")
    warn(f"--engine auto: torch translates, since for CTranslate2 {reason}.")
    return None


def _unfit(loaded: LoadedModel, search: Search, device: torch.device) -> str | None:
    """Why CTranslate2 cannot search like this; None if it can."""
    if importlib.util.find_spec("ctranslate2") is None:
        return "the package is not installed (pip install 'nmt-async[ctranslate2]')"
    reason = unsupported(loaded)
    if reason is not None:
        return f"{loaded.folder} does not fit: {reason}"
    for each in dataclasses.fields(search):
        if each.name in NOT_UNDERSTOOD and getattr(search, each.name) != each.default:
            return f"{NOT_UNDERSTOOD[each.name]} means nothing"
    if device.type == "cuda" and not import_ctranslate2().get_cuda_device_count():
        return "there is no CUDA device"
    return None


@dataclass
class _Sentence:
    """What became of a sentence.

    Attributes:
        source: its subwords.
        limit: longest translation, end mark counted.
        tokens: the best translation that CTranslate2 found, whatever it is; None where it was not asked.
        found: translations as our own search would give them.
    """

    source: list[str]
    limit: int
    tokens: list[str] | None = None
    found: list[Hypothesis] = field(default_factory=list)


class CTranslate2Engine:
    """CTranslate2 with as many CPU threads as torch has.

    Args:
        loaded: the model.
        search: as `_unfit` allows it.
        precision, token_scores: as for `engine_named`.
    """

    def __init__(
        self, loaded: LoadedModel, search: Search, device: torch.device, precision: str, token_scores: bool
    ) -> None:  # fmt: skip
        self._translator = _converted(loaded, device, precision)
        self._search = search
        self._token_scores = token_scores
        self._source_pieces = pieces(loaded.source_vocabulary)
        self._target_pieces = pieces(loaded.target_vocabulary)
        self._target_ids = {piece: index for index, piece in enumerate(self._target_pieces)}

    def __call__(self, batches: Sequence[Rows]) -> list[list[Hypothesis]]:
        sentences = [sentence for rows in batches for sentence in self._translated(rows)]
        at_once = max(map(len, batches), default=1)
        if self._search.beam_size == 1:
            self._end_greedily([each for each in sentences if each.tokens is not None and not each.found], at_once)
        if self._token_scores:
            self._score(sentences, at_once)
        return [sentence.found for sentence in sentences]

    def _translated(self, rows: Rows) -> list[_Sentence]:
        search = self._search
        limits = search.limits(torch.tensor([len(row) for row in rows])).tolist()
        sources = [[self._source_pieces[index] for index in row[:-1]] for row in rows]
        if max(len(rows[0]), max(limits)) > LONGEST:
            return [_Sentence(source, limit) for source, limit in zip(sources, limits, strict=True)]
        results = self._translator.translate_batch(
            sources,
            beam_size=search.beam_size,
            num_hypotheses=search.wanted,
            length_penalty=search.normalize,
            max_input_length=0,
            max_decoding_length=max(limits),
            min_decoding_length=0,
            return_scores=True,
        )
        return [
            _Sentence(source, limit, result.hypotheses[0], self._hypotheses(result, limit))
            for source, limit, result in zip(sources, limits, results, strict=True)
        ]

    def _hypotheses(self, result: Any, limit: int) -> list[Hypothesis]:
        found = []
        for tokens, score in zip(result.hypotheses, result.scores, strict=True):
            ids = tuple(self._target_ids[token] for token in tokens)
            if (UNKNOWN in ids and not self._search.allow_unknown) or END in ids or len(ids) >= limit:
                return []
            length = (len(ids) + 1) ** self._search.normalize
            found.append(Hypothesis(ids, score * length, score))
        return found

    def _end_greedily(self, sentences: list[_Sentence], at_once: int) -> None:
        """Fills what is missing, exactly as our greedy search does it.

        The best subword but ``<unk>`` is the same whoever shares its probability; at the limit, only the end is left.
        """
        unknown = self._target_pieces[UNKNOWN]
        if not self._search.allow_unknown:
            left_out = [each for each in sentences if unknown in (each.tokens or [])[: each.limit - 1]]
            again = self._translator.translate_batch(
                [each.source for each in left_out], beam_size=1, disable_unk=True, max_batch_size=at_once,
                max_input_length=0, max_decoding_length=max((each.limit for each in left_out), default=1),
                min_decoding_length=0,
            )  # fmt: skip
            for each, result in zip(left_out, again, strict=True):
                each.tokens = result.hypotheses[0]
        whole = [(each.tokens or [])[: each.limit - 1] for each in sentences]
        scored = self._translator.score_batch(
            [each.source for each in sentences], whole, max_batch_size=at_once, max_input_length=0
        )
        for each, tokens, result in zip(sentences, whole, scored, strict=True):
            ids, score = tuple(self._target_ids[token] for token in tokens), sum(result.log_probs)
            each.found.append(Hypothesis(ids, score, score / (len(ids) + 1) ** self._search.normalize))

    def _score(self, sentences: list[_Sentence], at_once: int) -> None:
        """Adds the scores of their subwords to the hypotheses."""
        places = [(each, rank) for each in sentences for rank in range(len(each.found))]
        scored = self._translator.score_batch(
            [each.source for each, _ in places],
            [[self._target_pieces[index] for index in each.found[rank].ids] for each, rank in places],
            max_batch_size=at_once,
            max_input_length=0,
        )
        for (each, rank), result in zip(places, scored, strict=True):
            each.found[rank] = dataclasses.replace(each.found[rank], token_scores=tuple(result.log_probs))


def _converted(loaded: LoadedModel, device: torch.device, precision: str) -> Any:
    """The model in CTranslate2; what was converted once is kept as long as the model is."""
    place = (device.type, device.index or 0, torch.get_num_threads(), precision)
    known = _known.setdefault(loaded.model, {})
    if place not in known:
        with tempfile.TemporaryDirectory(prefix="nmt-async-ctranslate2-") as folder:
            export_ctranslate2(loaded, Path(folder) / "model", precision)
            kind, index, threads, _ = place
            known[place] = import_ctranslate2().Translator(
                str(Path(folder) / "model"), device=kind, device_index=index, compute_type=precision,
                intra_threads=threads,
            )  # fmt: skip
    return known[place]


_known: WeakKeyDictionary[TranslationModel, dict[tuple[str, int, int, str], Any]] = WeakKeyDictionary()
