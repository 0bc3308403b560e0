"""From a hypothesis' summed log-probability to what hypotheses are ranked by, as Marian does it.

A penalty for each subword is subtracted first (``--word-penalty``), then the rest is divided by length^alpha
(``--normalize``, alpha; Wu et al. 2016 have a relative of it). The length counts the end mark. While a search goes on,
all hypotheses of a sentence are equally long, so only those that have ended are compared by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nmt_async.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Penalties:
    """How scores of translations of different lengths are made comparable.

    Attributes:
        normalize: alpha, the exponent of the length; 0 for none.
        word_penalty: subtracted for each subword, end mark counted, in nats; below 0 it favours long translations.
    """

    normalize: float
    word_penalty: float = 0.0

    def check(self) -> None:
        """Raises UserError, which names the option, where nothing finite would come of one of them."""
        if not 0.0 <= self.normalize <= 10.0:
            raise UserError(f"--normalize: {self.normalize:g} is not an exponent between 0 and 10.")
        if not -1000.0 <= self.word_penalty <= 1000.0:
            raise UserError(f"--word-penalty: {self.word_penalty:g} is not between -1000 and 1000.")

    def ranked(self, scores: Tensor, length: int) -> Tensor:
        """What translations of ``length`` subwords, end mark counted, with these summed scores are ranked by."""
        if self.word_penalty:
            scores = scores - self.word_penalty * length
        divisor: float = length**self.normalize
        return scores / divisor

    def bound(self, scores: Tensor, length: int, limits: Tensor) -> Tensor:
        """What no continuation can be ranked above, (sentences,); log-probabilities are at most 0, so scores fall.

        Args:
            scores: of what is continued, (sentences,).
            length: of the shortest continuation, end mark counted.
            limits: of the longest ones, (sentences,).
        """
        limits = limits.to(scores.dtype)
        largest = limits**self.normalize
        if not self.word_penalty:
            return scores / largest
        highest = scores - self.word_penalty * (length if self.word_penalty > 0 else limits)
        shortest: Tensor = highest / length**self.normalize
        return shortest.where(highest > 0, highest / largest)
