"""What a translation must not hold, and what it must: log-probabilities of forbidden subwords become minus infinity.

What remains is not normalised anew, so a hypothesis' score stays the model's log-probability of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nmt_async.search.options import Search
from nmt_async.text.batch import pad
from nmt_async.text.vocabulary import END, UNKNOWN


class Constraints:
    """The constraints on translations of the sentences still searched for.

    A forced prefix goes before all others, and a longest length before a shortest. Where every subword is forbidden
    (no run of n may stand twice, and the translation must not end yet), a hypothesis has no continuation.

    Args:
        search: says which constraints there are.
        source_lengths: (sentences,), int64, counting the end mark.
        prefixes: the subwords with which each translation begins; None for none. A translation may be one
            longer than its prefix, whatever its longest length.

    Attributes:
        limits: longest lengths, (sentences,), int64, counting the end mark.
    """

    def __init__(self, search: Search, source_lengths: Tensor, prefixes: Sequence[Sequence[int]] | None) -> None:
        self.allow_unknown = search.allow_unk
        self.ngram = search.no_repeat_ngram_size
        self.limits = search.limits(source_lengths)
        self.forced: Tensor | None = None
        self.forced_lengths = torch.zeros_like(self.limits)
        if prefixes is not None and any(prefixes):
            forced, lengths = pad(prefixes)
            self.forced, self.forced_lengths = forced.to(self.limits.device), lengths.to(self.limits.device)
            self.limits = torch.maximum(self.limits, self.forced_lengths + 1)
        self.least = torch.minimum(search.least_lengths(source_lengths), self.limits)
        self.first_limit, self.last_least = int(self.limits.min()), int(self.least.max())

    def apply(self, log_probabilities: Tensor, position: int, written: Tensor | None) -> Tensor | None:
        """Forbids what must not come next, in place.

        Args:
            log_probabilities: (sentences * beam, vocabulary), of the next subword.
            position: of it, counted from one.
            written: (sentences * beam, position - 1), the subwords so far; needed where no run may stand twice.

        Returns:
            Which sentences are at their longest length, (sentences,), bool; None where none is.
        """
        beam = len(log_probabilities) // len(self.limits)
        forcing = self.forced is not None and position <= self.forced.shape[1]
        as_given = log_probabilities.clone() if forcing else None
        if not self.allow_unknown:
            log_probabilities[:, UNKNOWN] = -math.inf
        if position < self.last_least:
            too_short = (position < self.least).repeat_interleave(beam)
            log_probabilities[:, END].masked_fill_(too_short, -math.inf)
        if 0 < self.ngram <= position - 1:
            assert written is not None
            self._forbid_repetition(log_probabilities, written)
        at_limit = None
        if position >= self.first_limit:
            at_limit = position >= self.limits
            end = log_probabilities[:, END].clone()
            log_probabilities.masked_fill_(at_limit.repeat_interleave(beam)[:, None], -math.inf)
            log_probabilities[:, END] = end
        if as_given is not None:
            self._force(log_probabilities, as_given, position, beam)
        return at_limit

    def _forbid_repetition(self, log_probabilities: Tensor, written: Tensor) -> None:
        """Forbids what would make the last ``ngram`` subwords ones that stood before (Paulus et al. 2018, 2.5)."""
        runs = written.unfold(1, self.ngram, 1)
        last = written[:, written.shape[1] - self.ngram + 1 :]
        rows, places = (runs[:, :, :-1] == last[:, None]).all(dim=2).nonzero(as_tuple=True)
        log_probabilities[rows, runs[rows, places, -1]] = -math.inf

    def _force(self, log_probabilities: Tensor, as_given: Tensor, position: int, beam: int) -> None:
        """Leaves only the prefix' subword where a prefix goes on."""
        assert self.forced is not None
        rows = (position <= self.forced_lengths).repeat_interleave(beam).nonzero().squeeze(1)
        subwords = self.forced[:, position - 1].repeat_interleave(beam)[rows]
        log_probabilities[rows] = -math.inf
        log_probabilities[rows, subwords] = as_given[rows, subwords]

    def keep(self, kept: Tensor) -> None:
        """Forgets all sentences but ``kept`` (remaining,), int64."""
        for name in ("limits", "least", "forced_lengths", "forced"):
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor.index_select(0, kept))
