"""Error feedback: what does not cross with a gradient is added to the same worker's next one.

With the gradient g of a batch and the worker's residual r, what crosses is m = Q(g + r), and g + r - m is the residual
from then on (Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847, there with the learning rate inside; here
the server applies the rate, so a residual is a sum of gradients like a push). So of all gradients together nothing
is lost: what crossed and what is left add up to them.

Q keeps the numbers of some places (`dropping`), all that there are, or both in turn: it keeps some and rounds them to
bfloat16, to the nearest and ties to even. A difference between a float32 and its rounding is a float32, so m and the
new residual add up to g + r exactly.

**When a residual counts.** A worker may die at any moment, and its batch is computed again by another; the server may
refuse its push, and its batch is computed again too. In both cases nothing of the push was applied, and g comes again
with the batch. So the residual must then be what it was before: were it the new one, r's share in m would be lost and
the rest of g would be counted twice. Each worker therefore has two rows: it reads the one that counts and writes the
other. The server makes the other one count in the moment in which it adds the push to its sum, and in no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt_async.sync.compression.message import Slot, add_to, subtract_from

NAME = "residual."
"""Under which the residual of each worker stands in a checkpoint, with its number behind."""


@dataclass(frozen=True)
class Compressed:
    """What became of a gradient.

    Attributes:
        norm: the Euclidean norm of gradient and residual together; not finite if any element is not, or would not be
            when it has crossed.
        entries: numbers that cross; 0 where all do.
    """

    norm: float
    entries: int


def compress(gradient: Tensor, slot: Slot, pick: Callable[[Tensor], Tensor] | None = None) -> Compressed:
    """Makes a push of a gradient, and leaves in ``slot.after`` what did not cross.

    Args:
        gradient: (size,), summed over tokens; is overwritten; it may be ``slot.after`` itself.
        pick: the places (entries,) that cross, of a vector (size,), where the slot has room for some only.
    """
    # What lies in parts on several devices is elsewhere for all of them.
    here = gradient.device == slot.before.device and type(gradient) is type(slot.before)
    gradient.add_(slot.before if here else slot.before.to(gradient.device))
    norm = float(torch.linalg.vector_norm(gradient))
    if norm > torch.finfo(slot.values.dtype).max:
        norm = math.inf
    entries = 0
    if slot.indices is None:
        # Elsewhere it is rounded there, so that half as much is copied.
        sent = slot.values if here else torch.empty_like(gradient, dtype=slot.values.dtype)
        sent.copy_(gradient)
        subtract_from(gradient, sent)
        if not here:
            slot.values.copy_(sent)
    else:
        assert pick is not None
        places = pick(gradient)
        entries = len(places)
        values = gradient[places]
        sent = values.to(slot.values.dtype)
        gradient[places] = values - sent
        slot.indices[:entries].copy_(places)
        slot.values[:entries].copy_(sent)
    if gradient is not slot.after:
        slot.after.copy_(gradient)
    return Compressed(norm, entries)


class Residuals:
    """What each worker's pushes have left behind.

    Args:
        rows: (2 * workers, size), float32, zeros; two rows for each worker, of which one counts.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._second = [False] * (len(rows) // 2)

    def row(self, worker: int) -> int:
        """The row that counts; the worker writes the other one of the pair, which is that number with the last bit
        turned."""
        return 2 * worker + self._second[worker]

    def before(self, worker: int) -> Tensor:
        """The residual (size,) that counts."""
        return self.rows[self.row(worker)]

    def after(self, worker: int) -> Tensor:
        """The residual (size,) that will count if the push under way is accepted."""
        return self.rows[self.row(worker) ^ 1]

    def accepted(self, worker: int) -> None:
        """The worker's push was added to the sum: what it left behind counts from now on."""
        self._second[worker] = not self._second[worker]

    def under_way(self, workers: Iterable[int]) -> dict[str, Tensor]:
        """What the pushes of some workers, which are still to come, will leave behind, not copied."""
        return {f"{NAME}after.{worker}": self.after(worker) for worker in workers}

    def readmit(self, worker: int, tensors: Mapping[str, Tensor]) -> None:
        """A worker's push is still to come after a resume; ``tensors`` hold what it will leave behind.

        Raises:
            LookupError, RuntimeError: they do not.
        """
        self.after(worker).copy_(tensors[f"{NAME}after.{worker}"])

    def norm(self) -> float:
        """The Euclidean norm of what all workers together have left behind."""
        total = torch.zeros_like(self.rows[0])
        for worker in range(len(self._second)):
            total.add_(self.before(worker))
        return float(torch.linalg.vector_norm(total))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores, not copied: the rows that count."""
        return {f"{NAME}{worker}": self.before(worker) for worker in range(len(self._second))}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up where `state` was taken, perhaps with other workers.

        The residuals of workers that there are no more are added to those of others, so nothing is lost; new workers
        begin without one.

        Raises:
            LookupError, RuntimeError: it is not what `state` gives.
        """
        numbers = (name.removeprefix(NAME) for name in tensors if name.startswith(NAME))
        stored = sorted(int(number) for number in numbers if number.isdecimal())
        if not stored or stored != list(range(len(stored))):
            raise LookupError("the residuals of the workers are not in it")
        workers = len(self._second)
        for worker in range(workers):
            kept = self.rows[2 * worker]
            if worker < len(stored):
                kept.copy_(tensors[f"{NAME}{worker}"])
            else:
                kept.zero_()
            self._second[worker] = False
        for gone in stored[workers:]:
            add_to(self.rows[2 * (gone % workers)], tensors[f"{NAME}{gone}"].to(self.rows))
