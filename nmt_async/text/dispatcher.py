"""The dispatcher hands batches out, takes them back, and knows of every batch where it is.

A batch is *waiting*, *out* with one worker, *accumulated* in the server's buffer, *applied* in an update, or *set
aside* after it failed too often. Only what is under way is stored: a batch before the stream's position that is
none of these is applied. So the memory does not grow with the corpus, and every change of state is checked.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from nmt_async.errors import shown
from nmt_async.text.plan import BatchId, BatchPlan

NOT_FINITE_LIMIT = 2
"""Pushes of one batch that may be not finite before it is set aside."""

DEATH_LIMIT = 3
"""Workers that may die at one batch before it is set aside."""


class Dispatcher:
    """Where every batch of the stream is.

    Args:
        plan: the stream.
        last_epoch: the stream ends after it; None: it never ends.
    """

    def __init__(self, plan: BatchPlan, last_epoch: int | None = None) -> None:
        self.plan = plan
        self.last_epoch = last_epoch
        self.position = BatchId(1, 0)
        self.returned: list[BatchId] = []
        self.out: dict[BatchId, int] = {}
        self.accumulated: set[BatchId] = set()
        self.set_aside: list[BatchId] = []
        self.failures: dict[BatchId, dict[str, int]] = {}

    def take(self, worker: int) -> BatchId | None:
        """The first waiting batch, now out with ``worker``; None when the stream has ended."""
        if self.returned:
            batch = self.returned.pop(0)
        elif self._ended():
            return None
        else:
            batch = self.position
            self.position = self.plan.following(batch)
        self.out[batch] = worker
        return batch

    def take_back(self, batch: BatchId, worker: int) -> None:
        """A waiting batch that was given back is out with ``worker`` again, who has its gradient already.

        Raises:
            ValueError: it was not given back.
        """
        if batch not in self.returned:
            raise ValueError(f"batch {batch} was not given back")
        self.returned.remove(batch)
        self.out[batch] = worker

    def _ended(self) -> bool:
        return self.last_epoch is not None and self.position.epoch > self.last_epoch

    @property
    def exhausted(self) -> bool:
        """True when every batch of a finite stream is accumulated, applied or set aside."""
        return self._ended() and not self.returned and not self.out

    def accumulate(self, batch: BatchId) -> None:
        """From *out* to *accumulated*.

        Raises:
            ValueError: it is not out, as when it is pushed a second time.
        """
        self._leave_out(batch)
        self.accumulated.add(batch)

    def apply(self, batches: Iterable[BatchId]) -> None:
        """From *accumulated* to *applied*.

        Raises:
            ValueError: one is not accumulated; then none is applied.
        """
        applied = list(batches)
        for batch in applied:
            if batch not in self.accumulated:
                raise ValueError(f"batch {batch} is not accumulated")
        for batch in applied:
            self.accumulated.remove(batch)
            self.failures.pop(batch, None)

    def give_back(self, batch: BatchId) -> None:
        """From *out* to the front of *waiting*.

        Raises:
            ValueError: it is not out.
        """
        self._leave_out(batch)
        bisect.insort(self.returned, batch)

    def fail(self, batch: BatchId, reason: str, limit: int) -> bool:
        """From *out* to *waiting*, or to *set aside* once it failed for ``reason`` ``limit`` times (then True).

        Raises:
            ValueError: it is not out.
        """
        self._leave_out(batch)
        counts = self.failures.setdefault(batch, {})
        counts[reason] = counts.get(reason, 0) + 1
        if counts[reason] < limit:
            bisect.insort(self.returned, batch)
            return False
        self.set_aside.append(batch)
        del self.failures[batch]
        return True

    def _leave_out(self, batch: BatchId) -> None:
        if batch not in self.out:
            raise ValueError(f"batch {batch} is not out with any worker")
        del self.out[batch]

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores; batches that are out count as waiting."""
        return {
            "position": list(self.position),
            "returned": sorted([*map(list, self.returned), *map(list, self.out)]),
            "accumulated": sorted(map(list, self.accumulated)),
            "set_aside": [list(batch) for batch in self.set_aside],
            "failures": [[list(batch), dict(counts)] for batch, counts in self.failures.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is no state, or of another plan.
        """
        self.position = self._known(state["position"])
        self.returned = sorted(map(self._known, state["returned"]))
        self.out = {}
        self.accumulated = set(map(self._known, state["accumulated"]))
        self.set_aside = list(map(_batch, state["set_aside"]))
        self.failures = {self._known(batch): dict(counts) for batch, counts in state["failures"]}

    def _known(self, values: Any) -> BatchId:
        batch = _batch(values)
        if batch.number >= len(self.plan.epoch(batch.epoch)):
            raise ValueError(f"the plan has no batch {batch.number} in epoch {batch.epoch}")
        return batch


def _batch(values: Any) -> BatchId:
    epoch, number = values
    if type(epoch) is not int or type(number) is not int or epoch < 1 or number < 0:
        raise ValueError(f"{shown(values)} is no batch")
    return BatchId(epoch, number)
