"""Which program searches: ours in torch, or CTranslate2, where it is installed and knows the model and the options.

CTranslate2 finds what we find, with two exceptions that are translated again by our own search: lines for which it
used ``<unk>``, which we never produce (it could leave it out, but then divides its probability among the others),
and lines whose translation reached their longest length, which it knows only for a whole batch.
It also ends a search as soon as enough hypotheses have ended (see `nmt_async.decoding.beam`), so it may stop short of
what we find: 1 % of Multi30k's test2016 at a beam of 5.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from nmt_async.decoding.beam import Hypothesis, Search, beam_search
from nmt_async.decoding.model_folder import LoadedModel
from nmt_async.decoding.sampling import sample
from nmt_async.errors import UserError
from nmt_async.export.ctranslate2 import LONGEST, export_ctranslate2, import_ctranslate2, pieces, unsupported
from nmt_async.model.decoder_state import TranslationModel
from nmt_async.text.batch import END, UNKNOWN, pad

ENGINES = ("torch", "ctranslate2", "auto")

NOT_UNDERSTOOD = {
    "word_penalty": "--word-penalty", "allow_unknown": "--allow-unk", "min_length": "--min-target-length",
    "min_length_factor": "--min-length-factor", "no_repeat_ngram": "--no-repeat-ngram-size",
    "sampling": "--output-sampling", "alignment": "--alignment",
}  # fmt: skip
"""Fields of `Search` that CTranslate2 has not, or understands otherwise: they must be as they are by default."""

Rows = list[list[int]]
"""Sentences as subword indexes, each with its end mark."""


class Engine(Protocol):
    """Searches for the translations of batches, each within what may be computed at once."""

    def __call__(self, batches: Sequence[Rows]) -> list[list[list[Hypothesis]]]:
        """For each batch, for each of its sentences, its translations, best first."""


def engine_named(
    name: str, loaded: LoadedModel, search: Search, device: torch.device, warn: Callable[[str], None],
    precision: str = "float32", more: Mapping[str, bool] = MappingProxyType({}),
) -> Engine | None:  # fmt: skip
    """The engine called ``name``, one of `ENGINES`; None for our own.

    Args:
        more: what is asked for besides ``search``, by the name of the option.
        warn: told in a sentence if ``auto`` falls back to torch.

    Raises:
        UserError: ``ctranslate2`` is asked for where it is not installed, or does not know the model or an option.
    """
    if name == "torch":
        return None
    asked = next((f"{flag} means nothing" for flag, wanted in more.items() if wanted), None)
    reason = asked or _unfit(loaded, search, device)
    if reason is None:
        return CTranslate2Engine(loaded, search, device, precision)
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
    for name, flag in NOT_UNDERSTOOD.items():
        if getattr(search, name) != getattr(Search(), name):
            return f"{flag} means nothing"
    if device.type == "cuda" and not import_ctranslate2().get_cuda_device_count():
        return "there is no CUDA device"
    return None


class CTranslate2Engine:
    """CTranslate2 with as many CPU threads as torch has.

    Args:
        loaded: the model.
        search: as `_unfit` allows it.
        precision: ``float32`` or ``int8``.
    """

    def __init__(self, loaded: LoadedModel, search: Search, device: torch.device, precision: str = "float32") -> None:
        self._translator = _converted(loaded, device, precision)
        self._model = loaded.model
        self._search = search
        self._device = device
        self._source_pieces = pieces(loaded.source_vocabulary)
        self._target_ids = {piece: index for index, piece in enumerate(pieces(loaded.target_vocabulary))}

    def __call__(self, batches: Sequence[Rows]) -> list[list[list[Hypothesis]]]:
        found = [self._translate(rows) for rows in batches]
        again = [
            (number, place)
            for number, batch in enumerate(found)
            for place, hypotheses in enumerate(batch)
            if not hypotheses
        ]
        at_once = max(map(len, batches), default=1)
        for begin in range(0, len(again), at_once):
            chosen = again[begin : begin + at_once]
            ours = search_rows(
                self._model, [batches[number][place] for number, place in chosen], None, self._search, self._device
            )
            for (number, place), hypotheses in zip(chosen, ours, strict=True):
                found[number][place] = hypotheses
        return found

    def _translate(self, rows: Rows) -> list[list[Hypothesis]]:
        """What CTranslate2 makes of a batch; nothing for sentences that are to be translated by our own search."""
        search = self._search
        limits = search.limits(torch.tensor([len(row) for row in rows])).tolist()
        if max(len(rows[0]), max(limits)) > LONGEST:
            return [[] for _ in rows]
        results = self._translator.translate_batch(
            [[self._source_pieces[index] for index in row[:-1]] for row in rows],
            beam_size=search.beam_size,
            num_hypotheses=search.wanted,
            length_penalty=search.normalize,
            max_input_length=0,
            max_decoding_length=max(limits),
            min_decoding_length=0,
            return_scores=True,
        )
        return [self._hypotheses(result, limit) for result, limit in zip(results, limits, strict=True)]

    def _hypotheses(self, result: Any, limit: int) -> list[Hypothesis]:
        found = []
        for tokens, score in zip(result.hypotheses, result.scores, strict=True):
            ids = tuple(self._target_ids[token] for token in tokens)
            if UNKNOWN in ids or END in ids or len(ids) >= limit:
                return []
            length = (len(ids) + 1) ** self._search.normalize
            found.append(Hypothesis(ids, score * length, score))
        return found


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


@torch.inference_mode()
def search_rows(
    model: TranslationModel, rows: Rows, prefixes: Rows | None, search: Search, device: torch.device
) -> list[list[Hypothesis]]:
    """Our own search, for one batch; ``prefixes`` are the subwords with which translations begin."""
    source, lengths = pad(rows)
    find = beam_search if search.sampling is None else sample
    return find(model, source.to(device), lengths.to(device), search, prefixes)
