"""The accumulation buffer: sums pushes until the rule makes them an update."""

from __future__ import annotations

import heapq
from typing import Any

import torch
from torch import Tensor

from nmt_async.reading import as_dataclass
from nmt_async.sync.compression.message import Message, Sparse, add_to, copy_to, dense
from nmt_async.sync.push import Push
from nmt_async.text.plan import BatchId


class AccumulationBuffer:
    """A running sum of gradients, in the order of arrival.

    Args:
        like: a vector of the size, type and place of the gradients.
    """

    def __init__(self, like: Tensor) -> None:
        self.sum = like.new_zeros(like.shape)
        self.summed: list[Push] = []
        self._spare: Tensor | None = None

    def __len__(self) -> int:
        return len(self.summed)

    @property
    def pushes(self) -> list[Push]:
        """All that was delivered since the latest update."""
        return self.summed

    def add(self, push: Push, gradient: Message, awaited: BatchId | None = None) -> None:  # noqa: ARG002
        """Adds ``gradient``, as it crossed; the caller may overwrite it as soon as this returns.

        Args:
            awaited: the first batch in the plan's order that was begun and has not been delivered.
        """
        if self.summed:
            add_to(self.sum, gradient)
        else:
            copy_to(self.sum, gradient)
        self.summed.append(push)

    def settle(self) -> None:
        """Brings everything delivered into the sum, before it becomes an update."""

    def clear(self) -> None:
        """Empties the buffer after its update; the sum's content means nothing from here on."""
        self.summed = []

    def take(self) -> Tensor:
        """Empties the buffer before its update; the sum, (size,), is the caller's until it is given back (`reuse`)."""
        taken, empty = self.sum, not self.summed
        self.sum = torch.empty_like(taken) if self._spare is None else self._spare
        self._spare = None
        self.clear()
        return taken.zero_() if empty else taken

    def reuse(self, taken: Tensor) -> None:
        """A sum that was taken is not needed any more."""
        self._spare = taken

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
    never comes.
    """

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self._held: dict[BatchId, tuple[Push, Message]] = {}
        self._order: list[BatchId] = []  # a heap of what is held

    def __len__(self) -> int:
        return len(self.summed) + len(self._held)

    @property
    def pushes(self) -> list[Push]:
        """All that was delivered since the latest update, in the order of the sum."""
        return [*self.summed, *(self._held[batch][0] for batch in sorted(self._held))]

    def add(self, push: Push, gradient: Message, awaited: BatchId | None = None) -> None:
        """Adds ``gradient`` if all before ``awaited`` have their turn, else copies it for later."""
        if awaited is not None and awaited < push.batch:
            self._add_held(awaited)
            self._held[push.batch] = (push, gradient.clone())
            heapq.heappush(self._order, push.batch)
        else:
            self._add_held(push.batch)
            super().add(push, gradient)
            self._add_held(awaited)

    def _add_held(self, before: BatchId | None) -> None:
        """Adds what is held of the batches ``before`` one, or of all."""
        while self._order and (before is None or self._order[0] < before):
            super().add(*self._held.pop(heapq.heappop(self._order)))

    def settle(self) -> None:
        """Adds what is held although earlier batches are missing: the round ends without them."""
        self._add_held(None)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """As in `AccumulationBuffer`; what is held is stored by itself, since its turn is still to come."""
        values, tensors = super().state()
        held = [self._held[batch] for batch in sorted(self._held)]
        values["held"] = [_plain(push) for push, _ in held]
        some = [gradient for _, gradient in held if isinstance(gradient, Sparse)]
        if some and len(some) == len(held):  # one after another, since they are of different lengths
            values["held_entries"] = [len(gradient.values) for gradient in some]
            tensors["held_indices"] = torch.cat([gradient.indices for gradient in some])
            tensors["held_values"] = torch.cat([gradient.values for gradient in some])
        elif held:
            whole = [gradient if isinstance(gradient, Tensor) else dense(gradient, self.sum) for _, gradient in held]
            alike = len({gradient.dtype for gradient in whole}) == 1
            tensors["held"] = torch.stack(whole if alike else [gradient.float() for gradient in whole])
        return values, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """As in `AccumulationBuffer`."""
        super().restore(values, tensors)
        pushes = [_push(entry) for entry in values["held"]]
        gradients = self._stored(values, tensors) if pushes else []
        self._held = {push.batch: (push, gradient) for push, gradient in zip(pushes, gradients, strict=True)}
        self._order = sorted(self._held)

    def _stored(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> list[Message]:
        """The held gradients in a state, copied to where the sum is."""
        place = self.sum.device
        if "held_entries" not in values:
            return [self.sum.new_empty(row.shape, dtype=row.dtype).copy_(row) for row in tensors["held"]]
        held: list[Message] = []
        begin = 0
        for entries in map(int, values["held_entries"]):
            part = slice(begin, begin + entries)
            begin += entries
            indices, numbers = (tensors[name][part].to(place, copy=True) for name in ("held_indices", "held_values"))
            held.append(Sparse(indices, numbers, len(self.sum)))
        return held


def _plain(push: Push) -> dict[str, Any]:
    return vars(push) | {"batch": list(push.batch)}


def _push(entry: dict[str, Any]) -> Push:
    values = dict(entry)
    if "parts" in values:  # as version 0.1 called it
        values["pieces"] = values.pop("parts")
    return as_dataclass(Push, values)
