"""What an optimizer is to the server: a step on the flat vector, and the vectors that it remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nmt_async.sync.optimizers.settings import OptimizerSettings


@dataclass(frozen=True)
class Matrix:
    """A matrix in the flat vector, (rows, columns) row by row, that an optimizer may treat as one.

    Attributes:
        begin: its first element in the vector.
        wide: blocks are cut out of its columns and not out of its rows, as the heads in an attention's output matrix.
    """

    begin: int
    rows: int
    columns: int
    wide: bool = False

    @property
    def end(self) -> int:
        """The element after its last."""
        return self.begin + self.rows * self.columns

    def view(self, vector: Tensor) -> Tensor:
        """It in ``vector`` (size,), as (rows, columns)."""
        return vector[self.begin : self.end].view(self.rows, self.columns)


class Step(ABC):
    """An optimizer.

    Args:
        like: a vector (size,) of the kind of the parameters.
        settings: its constants.
        matrices: hidden matrices in the vector, in its order.

    Attributes:
        REMEMBERS: what `tensors` are, in a few words.
        tensors: all that it remembers from one step to the next, by name.
        working: elements that a step needs besides, and that are nothing between two steps.
    """

    REMEMBERS: ClassVar[str]

    def __init__(self, like: Tensor, settings: OptimizerSettings, matrices: Sequence[Matrix]) -> None:  # noqa: ARG002
        self.settings = settings
        self.tensors: dict[str, Tensor] = {}
        self.working = 0

    @abstractmethod
    def take(self, parameters: Tensor, gradient: Tensor, rate: float, updates: int) -> None:
        """Changes ``parameters`` (size,) by ``gradient`` (size,), per token, which may be overwritten.

        Args:
            updates: that were made before.
        """

    @property
    def operations(self) -> int:
        """Floating-point operations of one step in products of matrices, each addition and multiplication counted."""
        return 0

    def decay(self, parameters: Tensor, rate: float) -> None:
        """Decoupled weight decay (Loshchilov & Hutter 2019)."""
        if self.settings.weight_decay:
            parameters.mul_(1.0 - rate * self.settings.weight_decay)


STRETCH = 2**16
"""Elements: 256 KiB of float32, of which a processor's cache holds several vectors'."""


STRETCH_ELSEWHERE = 2**24
"""Elements: 64 MiB of float32."""


def stretches(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Vectors (size,) side by side, some elements at a time: what many operations go over is fetched once.

    Other devices than a CPU get much at once, since there each operation has a cost of its own.
    """
    at_once = STRETCH if vectors[0].is_cpu else STRETCH_ELSEWHERE
    for begin in range(0, len(vectors[0]), at_once):
        yield tuple(vector[begin : begin + at_once] for vector in vectors)
