"""What of a gradient crosses, and what a worker does on its own between pulls. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.sync.optimizers.settings import OptimizerSettings

DTYPES = ("float32", "bfloat16")
"""In which the numbers of a push cross."""


@dataclass(frozen=True)
class LocalGradients:
    """How far a worker's own residual moves its copy of the parameters; see `nmt_async.cluster.local_copy`.

    Attributes:
        pushes: that an update sums.
        descent: where the server's optimizer is gradient descent, how often a gradient moves the parameters in the end
            by the rate; None: it is another one, whose steps do not depend on the gradient's scale.
    """

    pushes: int
    descent: float | None = None


@dataclass(frozen=True)
class PushSettings:
    """How a worker makes a push of a gradient.

    Attributes:
        dtype: of the numbers that cross, one of `DTYPES`.
        drop: the share of the numbers that do not cross; 0: all of them do.
        per_matrix: the numbers that cross are the largest of each matrix, not of the whole gradient.
        local_gradients: how a worker computes on parameters that its residual has moved; None: on those it pulled.
        local_optimizer: steps a worker's copy between the batches that one push sums; None: nothing does.
    """

    dtype: str = "float32"
    drop: float = 0.0
    per_matrix: bool = False
    local_gradients: LocalGradients | None = None
    local_optimizer: OptimizerSettings | None = None

    @property
    def own_copy(self) -> bool:
        """Whether a worker changes the parameters on which it computes, and so needs a copy."""
        return self.local_gradients is not None or self.local_optimizer is not None

    @property
    def compressed(self) -> bool:
        """Whether something of a gradient stays behind, in the worker's residual."""
        return self.dtype != "float32" or self.drop > 0


WHOLE = PushSettings()
"""Every number of a gradient crosses as it is."""
