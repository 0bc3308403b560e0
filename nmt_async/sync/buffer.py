"""The accumulation buffer: sums pushes until the rule makes them an update."""

from __future__ import annotations

import bisect
from typing import Any

import torch
from torch import Tensor

from nmt_async.reading import as_dataclass
from nmt_async.sync.push import BatchKey, Push


class AccumulationBuffer:
    """A running sum of gradients, in the order of arrival.

    Args:
        like: a vector of the size, type and place of the gradients.
    """

    def __init__(self, like: Tensor) -> None:
        self.sum = like.new_zeros(like.shape)
        self.summed: list[Push] = []

    def __len__(self) -> int:
        return len(self.summed)

    @property
    def pushes(self) -> list[Push]:
        """All that was delivered since the latest update."""
        return self.summed

    def expect(self, batch: BatchKey) -> None:
        """A batch has been begun whose push will come."""

    def add(self, push: Push, gradient: Tensor) -> None:
        """Adds ``gradient``; the caller may overwrite it as soon as this returns."""
        if self.summed:
            self.sum.add_(gradient)
        else:
            self.sum.copy_(gradient)
        self.summed.append(push)

    def settle(self) -> None:
        """Brings everything delivered into the sum, before it becomes an update."""

    def clear(self) -> None:
        """Empties the buffer after its update; the sum's content means nothing from here on."""
        self.summed = []

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: the pushes, and the sum of their gradients if there are any, not copied."""
        return {"summed": [_plain(push) for push in self.summed]}, {"sum": self.sum} if self.summed else {}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken.

        Raises:
            KeyError: something is absent.
        """
        self.summed = [_push(entry) for entry in values["summed"]]
        if self.summed:
            self.sum.copy_(tensors["sum"])


class OrderedBuffer(AccumulationBuffer):
    """Sums in the plan's order, whoever comes first: sums of floats depend on their order, so an update does not.

    A push that arrives before an earlier batch's is copied and held until that one is in, or until the update if it
    never comes. Batches are begun in the plan's order, so the first expected one is always known.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self._expected: list[BatchKey] = []
        self._held: dict[BatchKey, tuple[Push, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.summed) + len(self._held)

    @property
    def pushes(self) -> list[Push]:
        """All that was delivered since the latest update, in the order of the sum."""
        return [*self.summed, *(self._held[batch][0] for batch in sorted(self._held))]

    def expect(self, batch: BatchKey) -> None:
        """Later batches' pushes are held until this one's is in."""
        place = bisect.bisect_left(self._expected, batch)
        if self._expected[place : place + 1] != [batch]:
            self._expected.insert(place, batch)

    def add(self, push: Push, gradient: Tensor) -> None:
        """Adds ``gradient`` if its turn has come, else copies it for later."""
        if self._expected and push.batch == self._expected[0]:
            super().add(push, gradient)
            self._expected.pop(0)
            while self._expected and self._expected[0] in self._held:
                super().add(*self._held.pop(self._expected.pop(0)))
        else:
            self._held[push.batch] = (push, gradient.clone())

    def settle(self) -> None:
        """Adds what is held although earlier batches are missing: the round ends without them."""
        for batch in sorted(self._held):
            super().add(*self._held.pop(batch))
        self._expected = []

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """As in `AccumulationBuffer`; what is held is stored by itself, since its turn is still to come."""
        values, tensors = super().state()
        held = [self._held[batch] for batch in sorted(self._held)]
        values["held"] = [_plain(push) for push, _ in held]
        values["expected"] = [list(batch) for batch in self._expected]
        if held:
            tensors["held"] = torch.stack([gradient for _, gradient in held])
        return values, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """As in `AccumulationBuffer`."""
        super().restore(values, tensors)
        self._expected = [_key(batch) for batch in values["expected"]]
        pushes = [_push(entry) for entry in values["held"]]
        rows = tensors["held"] if pushes else self.sum[:0]
        self._held = {push.batch: (push, row.to(self.sum)) for push, row in zip(pushes, rows, strict=True)}


def _plain(push: Push) -> dict[str, Any]:
    return vars(push) | {"batch": list(push.batch)}


def _push(entry: dict[str, Any]) -> Push:
    return as_dataclass(Push, entry | {"batch": list(_key(entry["batch"]))})


def _key(batch: list[int]) -> BatchKey:
    epoch, number = batch
    return epoch, number
