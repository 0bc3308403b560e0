"""Which program searches: ours in torch, or CTranslate2, where it is installed and knows the model and the options.

CTranslate2 finds what we find. We never produce ``<unk>``, and CTranslate2 could leave it out, but would then divide
its probability among the others, so that other scores came out. In beam search, ``<unk>`` is a second end mark instead:
a hypothesis that takes it is over, holds no place in the beam and is thrown away. It counts, however, as one of those
that CTranslate2 waits for. Where fewer are left than are wanted, CTranslate2 searches once more, until `PATIENCE` times
as many hypotheses are over. Greedy search needs none of this: the best subword but ``<unk>`` is the same whoever shares
its probability.

Our own search translates lines for which even that left too few, and those whose translation reached its longest
length, which CTranslate2 knows only for a whole batch; in greedy search only the end is left there.

CTranslate2 also ends a search as soon as enough hypotheses have ended (see `nmt_async.search.beam`), so it may stop
short of what we find: 2 % of Multi30k's test2016 at a beam of 5.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from nmt_async.checkpoints import LoadedModel, load_model
from nmt_async.errors import UserError
from nmt_async.export.ctranslate2 import LONGEST, export_ctranslate2, import_ctranslate2, unsupported
from nmt_async.model import TranslationModel
from nmt_async.options import flag_of, is_given
from nmt_async.search import Hypothesis, Search, SearchOptions
from nmt_async.text.vocabulary import END, UNKNOWN
from nmt_async.translate.formats import WantedScores

UNDERSTOOD = {
    "beam_size", "normalize", "allow_unk", "max_target_length", "max_length_factor", "seed",
}  # fmt: skip
"""Options of a search that CTranslate2 understands as we do; what is given of the others needs our own search."""

PATIENCE = 8
"""Times the beam's size: as many hypotheses must be over in a second search, after ``<unk>`` ended too many."""

Rows = list[list[int]]
"""Sentences as subword indexes, each with its end mark."""

Asked = tuple[Any, int]
"""What a sentence's translation will come as, None where it cannot be asked for, and its longest length."""


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
    scores: WantedScores = WantedScores.OF_SUBWORDS,
) -> Engine | None:
    """The engine called ``name``, one of `nmt_async.translate.options.ENGINES`; None for our own.

    Args:
        warn: told in a sentence if ``auto`` falls back to torch.
        scores: that hypotheses come with; those of CTranslate2 may have nan for others.

    Raises:
        UserError: ``ctranslate2`` is asked for where it is not installed, or does not know the model, an option, or
            the precision on this device.
    """
    if name == "torch":
        return None
    reason = _unfit(loaded, search, device, precision)
    if reason is None:
        return CTranslate2Engine(loaded, search, device, precision, scores)
    if name == "ctranslate2":
        raise UserError(f"--engine ctranslate2: {reason}; give --engine torch, or auto.")
    warn(f"--engine auto: torch translates, since for CTranslate2 {reason}.")
    return None


def on_gpus() -> bool:
    """Whether CTranslate2 is installed, and built so that it sees a GPU."""
    return importlib.util.find_spec("ctranslate2") is not None and import_ctranslate2().get_cuda_device_count() > 0


def _unfit(loaded: LoadedModel, search: Search, device: torch.device, precision: str) -> str | None:
    """Why CTranslate2 cannot search like this; None if it can."""
    if importlib.util.find_spec("ctranslate2") is None:
        return "the package is not installed (pip install 'nmt-async[ctranslate2]')"
    reason = unsupported(loaded)
    if reason is not None:
        return f"{loaded.folder} does not fit: {reason}"
    if search.alignment:
        return "--alignment is unknown there, or means something else"
    for option in dataclasses.fields(SearchOptions):
        if option.name not in UNDERSTOOD and is_given(option, getattr(search, option.name)):
            return f"{flag_of(option)} is unknown there, or means something else"
    if device.type == "cuda" and not import_ctranslate2().get_cuda_device_count():
        return "there is no CUDA device"
    if precision not in import_ctranslate2().get_supported_compute_types(device.type, device.index or 0):
        return f"--precision {precision} has no kernels there on this device"
    return None


@dataclasses.dataclass(frozen=True)
class _Ended:
    """What became of a sentence.

    Attributes:
        hypotheses: that ended with an end mark, best first; none where our own search is to find them.
        too_few: ``<unk>`` ended others, so that more are wanted than there are.
    """

    hypotheses: list[Hypothesis]
    too_few: bool = False


class CTranslate2Engine:
    """CTranslate2 with as many CPU threads as torch has, each with a batch of its own.

    Args:
        loaded: the model.
        search: as `_unfit` allows it.
        precision, scores: as for `engine_named`.
    """

    def __init__(
        self, loaded: LoadedModel, search: Search, device: torch.device, precision: str, scores: WantedScores
    ) -> None:  # fmt: skip
        self._translator = _converted(loaded, device, precision)
        self._search = search
        self._scores = scores
        self._source_pieces = loaded.source_vocabulary.all_pieces
        self._target_pieces = loaded.target_vocabulary.all_pieces
        self._target_ids = {piece: index for index, piece in enumerate(self._target_pieces)}
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._ends = (END,) if search.allow_unk or search.beam_size == 1 else (END, UNKNOWN)

    def __call__(self, batches: Sequence[Rows]) -> list[list[Hypothesis]]:
        greedy = self._search.beam_size == 1
        asked = [self._asked(rows, greedy) for rows in batches]
        found = [self._greedy(*each) for batch in asked for each in batch] if greedy else self._beam(batches, asked)
        if self._scores > (WantedScores.NONE if greedy else WantedScores.OF_TRANSLATIONS):
            self._score([row for rows in batches for row in rows], found, max(map(len, batches), default=1), greedy)
        return found

    def _beam(self, batches: Sequence[Rows], asked: Sequence[Sequence[Asked]]) -> list[list[Hypothesis]]:
        """What is ``asked`` for each sentence of the batches, after a second search where the first left too few."""
        found: list[list[Hypothesis]] = []
        again: list[tuple[int, Asked]] = []
        early = max(0, len(batches) - self._threads)  # what is asked for then goes on beside the last batches
        for begin, end in ((0, early), (early, len(batches))):
            few = []
            for rows, results in zip(batches[begin:end], asked[begin:end], strict=True):
                for row, result in zip(rows, results, strict=True):
                    ended = self._ended(*result)
                    if ended.too_few:
                        few.append((len(found), row, len(rows)))
                    found.append(ended.hypotheses)
            again += self._asked_again(few)
        for place, result in again:
            ended = self._ended(*result)
            found[place] = [] if ended.too_few else ended.hypotheses
        return found

    def _asked_again(self, rows: list[tuple[int, list[int], int]]) -> Iterator[tuple[int, Asked]]:
        """A second search, which waits for more hypotheses.

        Args:
            rows: the longest first, each with its place and with how many as long as it may be searched for at once.
        """
        share = -(-len(rows) // self._threads)
        while rows:
            size = min(rows[0][2], share)
            results = self._asked([row for _, row, _ in rows[:size]], False, PATIENCE)
            yield from zip((place for place, _, _ in rows[:size]), results, strict=True)
            rows = rows[size:]

    def _asked(self, rows: Rows, greedy: bool, patience: int = 1) -> list[Asked]:
        """Has the rows searched for at once."""
        search = self._search
        limits = search.limits(torch.tensor([len(row) for row in rows])).tolist()
        if max(len(rows[0]), max(limits)) > LONGEST:
            return [(None, limit) for limit in limits]
        # Without --normalize CTranslate2 ends with the best ones asked for, since none gets better by its length.
        best_alone = greedy or (patience == 1 and search.normalize == 0.0)
        results = self._translator.translate_batch(
            self._sources(rows),
            beam_size=search.beam_size,
            num_hypotheses=search.wanted if best_alone else search.beam_size * patience,
            patience=patience,
            length_penalty=search.normalize,
            end_token=[self._target_pieces[index] for index in self._ends],
            return_end_token=not greedy,
            disable_unk=greedy and not search.allow_unk,
            max_input_length=0,
            max_decoding_length=max(limits),
            min_decoding_length=0,
            return_scores=not greedy,
            asynchronous=True,
        )
        return list(zip(results, limits, strict=True))

    def _sources(self, rows: Rows) -> list[list[str]]:
        return [[self._source_pieces[index] for index in row[:-1]] for row in rows]

    def _ids(self, tokens: Sequence[str]) -> tuple[int, ...]:
        return tuple(self._target_ids[token] for token in tokens)

    def _greedy(self, result: Any | None, limit: int) -> list[Hypothesis]:
        if result is None:
            return []
        return [Hypothesis(self._ids(result.result().hypotheses[0][: limit - 1]), math.nan, math.nan)]

    def _ended(self, result: Any | None, limit: int) -> _Ended:
        """Those wanted of a sentence's hypotheses, best first; none where our own search is to find them."""
        if result is None:
            return _Ended([])
        told, found, dropped = result.result(), [], False
        for tokens, score in zip(told.hypotheses, told.scores, strict=True):
            ids = self._ids(tokens)
            if any(end in ids[:-1] for end in self._ends):  # it went on, since all that could go on were over
                return _Ended([])
            if ids[-1:] == (UNKNOWN,) and UNKNOWN in self._ends:
                dropped = True
                continue
            if ids[-1:] != (END,) or len(ids) > limit:
                return _Ended([])
            found.append(Hypothesis(ids[:-1], score * len(ids) ** self._search.normalize, score))
            if len(found) == self._search.wanted:
                return _Ended(found)
        return _Ended(found, too_few=dropped)

    def _score(self, rows: Rows, found: list[list[Hypothesis]], at_once: int, wholly: bool) -> None:
        """Gives hypotheses the scores of their subwords, and ``wholly`` their own too."""
        places = [(place, rank) for place, hypotheses in enumerate(found) for rank in range(len(hypotheses))]
        scored = self._translator.score_batch(
            self._sources([rows[place] for place, _ in places]),
            [[self._target_pieces[index] for index in found[place][rank].ids] for place, rank in places],
            max_batch_size=at_once,
            max_input_length=0,
        )
        for (place, rank), result in zip(places, scored, strict=True):
            hypothesis, scores = found[place][rank], tuple(result.log_probs)
            if wholly:
                score = sum(scores)
                normalised = score / len(scores) ** self._search.normalize
                hypothesis = dataclasses.replace(hypothesis, score=score, normalised=normalised)
            found[place][rank] = dataclasses.replace(hypothesis, token_scores=scores)


def _converted(loaded: LoadedModel, device: torch.device, precision: str) -> Any:
    """The model in CTranslate2; what was converted once is kept as long as the model is."""
    place = (device.type, device.index or 0, torch.get_num_threads(), precision)
    known = _known.setdefault(loaded.model, {})
    if place not in known:
        with tempfile.TemporaryDirectory(prefix="nmt-async-ctranslate2-") as folder:
            whole = loaded if loaded.quantization is None else load_model(loaded.folder)
            export_ctranslate2(whole, Path(folder) / "model", precision)
            kind, index, threads, _ = place
            known[place] = import_ctranslate2().Translator(
                str(Path(folder) / "model"), device=kind, device_index=index, compute_type=precision,
                inter_threads=threads if kind == "cpu" else 1, intra_threads=1,
            )  # fmt: skip
            torch.set_num_threads(threads)  # CTranslate2 told OpenMP its own number, which torch would go by, too
    return known[place]


_known: WeakKeyDictionary[TranslationModel, dict[tuple[str, int, int, str], Any]] = WeakKeyDictionary()
