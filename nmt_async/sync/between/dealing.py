"""Which machine gets which batch: every batch of the stream goes to exactly one.

All machines hold this object, feed it with the same contributions in the same order, and so agree without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from nmt_async.text.plan import BatchId


class Dealing:
    """The stream of batches, shared out among machines in the order of the plan.

    Args:
        batches: how many an epoch has.
        last_epoch: the stream ends after it; None: it never ends.

    Attributes:
        position: the first batch that was never dealt.
        recalled: batches that come before, which are to be dealt anew, in the stream's order.
        outstanding: batches that were dealt, and are neither applied nor set aside.
        set_aside: batches that failed too often.
    """

    def __init__(self, batches: Callable[[int], int], last_epoch: int | None = None) -> None:
        self._batches = batches
        self._last_epoch = last_epoch
        self.position = BatchId(1, 0)
        self.recalled: list[BatchId] = []
        self.outstanding: set[BatchId] = set()
        self.set_aside: list[BatchId] = []

    @property
    def exhausted(self) -> bool:
        """Whether a finite stream has nothing left to deal."""
        return not self.recalled and self._at_end()

    def _at_end(self) -> bool:
        return self._last_epoch is not None and self.position.epoch > self._last_epoch

    def deal(self, wanted: Sequence[int]) -> list[list[BatchId]]:
        """The next batches for each machine, as many as it wants; what is left of a finite stream is shared out in
        proportion to what they want."""
        shares = _shares(wanted, self._next(sum(wanted)))
        for share in shares:
            self.outstanding.update(share)
        return shares

    def _next(self, count: int) -> list[BatchId]:
        batches, self.recalled = self.recalled[:count], self.recalled[count:]
        while len(batches) < count and not self._at_end():
            batches.append(self.position)
            epoch, number = self.position
            at_end = number + 1 >= self._batches(epoch)
            self.position = BatchId(epoch + 1, 0) if at_end else BatchId(epoch, number + 1)
        return batches

    def done(self, applied: Iterable[BatchId], set_aside: Collection[BatchId] = ()) -> None:
        """Batches that are in the parameters now, and batches that never will be."""
        self.outstanding.difference_update(applied)
        self.outstanding.difference_update(set_aside)
        self.set_aside += set_aside

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {
            "position": list(self.position),
            "recalled": [list(batch) for batch in sorted({*self.recalled, *self.outstanding})],
            "set_aside": [list(batch) for batch in self.set_aside],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was taken; whatever was outstanding is dealt anew.

        Raises:
            LookupError, TypeError, ValueError: it is no state, or of another plan.
        """
        self.position = self._known(state["position"])
        self.recalled = sorted(map(self._known, state["recalled"]))
        self.outstanding = set()
        self.set_aside = list(map(self._known, state["set_aside"]))
        if len(set(self.recalled)) < len(self.recalled) or any(batch >= self.position for batch in self.recalled):
            raise ValueError("a batch is to be dealt twice")

    def _known(self, values: Any) -> BatchId:
        epoch, number = values
        if type(epoch) is not int or type(number) is not int or epoch < 1 or not 0 <= number < self._batches(epoch):
            raise ValueError(f"the plan has no batch {number} of epoch {epoch}")
        return BatchId(epoch, number)


def _shares(wanted: Sequence[int], batches: Sequence[BatchId]) -> list[list[BatchId]]:
    """Consecutive batches for each, as many as wanted; of too few, each has its part, rounded."""
    total, shares, begin, so_far = sum(wanted), [], 0, 0
    for count in wanted:
        so_far += count
        end = so_far if len(batches) == total else round(so_far * len(batches) / total)
        shares.append(list(batches[begin:end]))
        begin = end
    return shares


def runs(batches: Sequence[BatchId]) -> list[tuple[BatchId, int]]:
    """Consecutive batches of one epoch as (first, how many)."""
    found: list[tuple[BatchId, int]] = []
    for batch in batches:
        if found:
            first, count = found[-1]
            if batch == BatchId(first.epoch, first.number + count):
                found[-1] = (first, count + 1)
                continue
        found.append((batch, 1))
    return found
