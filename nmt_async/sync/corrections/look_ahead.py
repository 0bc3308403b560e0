"""What a pull gives in the place of the parameters: where they are to be expected when the push arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor


class LookAhead(ABC):
    """It has the parameters themselves; the ring's buffers then hold what pulls give.

    Only pulls see it. Validation, checkpoints and the moving average have the parameters.

    Args:
        initial: the parameters (size,) at the beginning.
    """

    def __init__(self, initial: Tensor) -> None:
        self.parameters = initial.clone()

    def updating(self) -> Tensor:
        """The parameters (size,), for an update to change them in place."""
        return self.parameters

    def move(self, parameters: Tensor) -> None:
        """The parameters become others, (size,), copied: not by a step, so that nothing follows from it."""
        self.parameters.copy_(parameters)

    @abstractmethod
    def write(self, buffer: Tensor) -> None:
        """Writes what a pull gives into ``buffer`` (size,)."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it remembers beside the parameters, by the names that a checkpoint stores them under; not copied."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up where `tensors` was taken; the parameters have been restored.

        Raises:
            LookupError, RuntimeError: something is absent, or is not what `tensors` gives.
        """
        for name, own in self.tensors.items():
            own.copy_(tensors[name])
