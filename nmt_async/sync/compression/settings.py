"""What of a gradient crosses, and what a worker does on its own between pulls. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float32", "bfloat16")
"""In which the numbers of a push cross."""


@dataclass(frozen=True)
class PushSettings:
    """How a worker makes a push of a gradient.

    Attributes:
        dtype: of the numbers that cross, one of `DTYPES`.
        drop: the share of the numbers that do not cross; 0: all of them do.
        per_matrix: the numbers that cross are the largest of each matrix, not of the whole gradient.
    """

    dtype: str = "float32"
    drop: float = 0.0
    per_matrix: bool = False

    @property
    def compressed(self) -> bool:
        """Whether something of a gradient stays behind, in the worker's residual."""
        return self.dtype != "float32" or self.drop > 0


WHOLE = PushSettings()
"""Every number of a gradient crosses as it is."""
