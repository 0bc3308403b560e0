"""What a correction is to the server: it weighs each push, hears of each update, and may remember vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Arrival:
    """A push that counts, as a correction weighs it.

    Attributes:
        staleness: updates applied between its pull and the update that it enters.
        tokens: target tokens it is summed over.
        gradient: (size,), summed over its tokens; to be read only.
        current: (size,), the parameters now; to be read only.
        pulled: (size,), the parameters that it was computed on; None unless a correction `looks_at_parameters`.
    """

    staleness: int
    tokens: int
    gradient: Tensor
    current: Tensor
    pulled: Tensor | None = None


@dataclass(frozen=True)
class Applied:
    """An update, as a correction hears of it right after the optimizer's step.

    Attributes:
        before: (size,), the parameters before it; to be read only.
        parameters: (size,), the parameters after it, which a correction may change.
        rate: the learning rate.
        staleness: of its pushes on average, weighted by their tokens, in updates.
    """

    before: Tensor
    parameters: Tensor
    rate: float
    staleness: float


class Correction:
    """What one does not answer itself, it answers as if nothing were to be corrected.

    Attributes:
        looks_at_parameters: `weight` wants the parameters that a push was computed on, which are kept until it comes.
        watches_updates: `applied` is to be told of each update.
        tensors: what it remembers, by the names that a checkpoint stores them under.
    """

    looks_at_parameters: ClassVar[bool] = False
    watches_updates: ClassVar[bool] = False

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def weight(self, arrival: Arrival) -> float | Tensor:  # noqa: ARG002
        """The factor by which the gradient of a push enters the sum: a number, or one for each parameter, (size,).

        It touches the gradient alone. The sum is still divided by all tokens of its pushes, and a push counts as all
        of its tokens for schedules, budgets and the journal. So a weight below 1 makes the step smaller, as in the
        works that scale stale gradients or their learning rate. It is asked once for each push that counts.
        """
        return 1.0

    def applied(self, update: Applied) -> None:
        """An update was made, and is not yet in the moving average of the parameters."""
