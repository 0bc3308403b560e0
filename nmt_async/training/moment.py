"""How far a run is, in every unit, and when something is due."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.quantity import Quantity
from nmt_async.sync.push import Update


@dataclass(frozen=True)
class Moment:
    """How far a run is.

    Attributes:
        updates, tokens, source_tokens: so far; ``tokens`` counts target tokens.
        epochs: gone by, as a fraction.
        epoch: in which the latest update's last batch lies, from 1.
        sentences: sentence pairs of that epoch applied so far.
        seconds: of training, earlier sittings of the run included.
    """

    updates: int = 0
    tokens: int = 0
    source_tokens: int = 0
    epochs: float = 0.0
    epoch: int = 1
    sentences: int = 0
    seconds: float = 0.0

    def after(self, update: Update, epochs: float, seconds: float) -> Moment:
        """The moment at which ``update`` is applied."""
        epoch = max(self.epoch, max(push.batch[0] for push in update.pushes))
        sentences = self.sentences if epoch == self.epoch else 0
        return Moment(
            updates=update.version,
            tokens=self.tokens + update.tokens,
            source_tokens=self.source_tokens + sum(push.source_tokens for push in update.pushes),
            epochs=epochs,
            epoch=epoch,
            sentences=sentences + sum(push.sentences for push in update.pushes if push.batch[0] == epoch),
            seconds=seconds,
        )

    def amount(self, unit: str) -> float:
        """The moment in ``unit``, a unit of `Quantity`."""
        if unit == "minutes":
            return self.seconds / 60
        if unit == "hours":
            return self.seconds / 3600
        return float(getattr(self, unit))

    def reaches(self, quantity: Quantity) -> bool:
        """Whether the amount has gone by."""
        return self.amount(quantity.unit) >= quantity.amount

    def share(self, quantity: Quantity | None) -> float | None:
        """How much of the amount has gone by, 0 to 1."""
        return None if quantity is None else min(1.0, self.amount(quantity.unit) / quantity.amount)


class Every:
    """Says when something that happens every so often is due: at each multiple of the amount.

    Args:
        quantity: the amount between two times.
        since: the moment from which to count on.
    """

    def __init__(self, quantity: Quantity, since: Moment) -> None:
        self.quantity = quantity
        self._done = self._multiples(since)

    def _multiples(self, moment: Moment) -> int:
        return int(moment.amount(self.quantity.unit) / self.quantity.amount)

    def due(self, moment: Moment) -> bool:
        """True if a multiple has been passed since the last time `mark` was called."""
        return self._multiples(moment) > self._done

    def mark(self, moment: Moment) -> None:
        """It has happened."""
        self._done = self._multiples(moment)
