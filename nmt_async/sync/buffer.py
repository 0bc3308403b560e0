"""The accumulation buffer: sums pushes until the rule makes them an update."""

from __future__ import annotations

import bisect
from typing import Any

from torch import Tensor

from nmt_async.sync.push import BatchKey, Push


class AccumulationBuffer:
    """A running sum of gradients, in the order of arrival.

    Args:
        like: a vector of the size, type and place of the gradients.
    """

    def __init__(self, like: Tensor) -> None:
        self.sum = like.new_zeros(like.shape)
        self.pushes: list[Push] = []

    def __len__(self) -> int:
        return len(self.pushes)

    @property
    def tokens(self) -> int:
        """Target tokens summed so far."""
        return sum(push.tokens for push in self.pushes)

    def expect(self, batch: BatchKey) -> None:
        """A batch has been begun whose push will come."""

    def forget(self, batch: BatchKey) -> None:
        """The batch will not come in this round."""

    def add(self, push: Push, gradient: Tensor) -> None:
        """Adds ``gradient``; the caller may overwrite it as soon as this returns."""
        if self.pushes:
            self.sum.add_(gradient)
        else:
            self.sum.copy_(gradient)
        self.pushes.append(push)

    def settle(self) -> None:
        """Brings everything delivered into the sum, before it becomes an update."""

    def clear(self) -> None:
        """Empties the buffer after its update; the sum's content means nothing from here on."""
        self.pushes = []

    def state(self) -> dict[str, Any]:
        """The pushes in the sum, for a checkpoint; the sum itself is stored beside it."""
        return {"pushes": [vars(push) | {"batch": list(push.batch)} for push in self.pushes]}

    def restore(self, state: dict[str, Any], total: Tensor) -> None:
        """Takes up where `state` was taken, with the sum ``total``."""
        self.pushes = [Push(**(entry | {"batch": tuple(entry["batch"])})) for entry in state["pushes"]]
        self.sum.copy_(total)


class OrderedBuffer(AccumulationBuffer):
    """Sums in the plan's order, whoever comes first: sums of floats depend on their order, so an update does not.

    A push that arrives before an earlier batch's is copied and held until that one is in. Batches are begun in the
    plan's order, so the first expected one is always known.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self._expected: list[BatchKey] = []
        self._held: dict[BatchKey, tuple[Push, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.pushes) + len(self._held)

    def expect(self, batch: BatchKey) -> None:
        """Later batches' pushes are held until this one's is in."""
        if batch not in self._expected:
            bisect.insort(self._expected, batch)

    def forget(self, batch: BatchKey) -> None:
        """Later batches' pushes no longer wait for this one's."""
        self._expected.remove(batch)
        self._add_due()

    def add(self, push: Push, gradient: Tensor) -> None:
        """Adds ``gradient`` if its turn has come, else copies it for later."""
        if self._expected and push.batch == self._expected[0]:
            super().add(push, gradient)
            self._expected.pop(0)
            self._add_due()
        else:
            self._held[push.batch] = (push, gradient.clone())

    def _add_due(self) -> None:
        while self._expected and self._expected[0] in self._held:
            super().add(*self._held.pop(self._expected.pop(0)))

    def state(self) -> dict[str, Any]:
        """As in `AccumulationBuffer`.

        Raises:
            ValueError: pushes are held whose turn has not come; a checkpoint belongs between two rounds.
        """
        if self._held:
            raise ValueError("a synchronous round is under way")
        return super().state()

    def settle(self) -> None:
        """Adds what is held although earlier batches are missing: the round ends without them."""
        for batch in sorted(self._held):
            super().add(*self._held.pop(batch))
        self._expected = []
