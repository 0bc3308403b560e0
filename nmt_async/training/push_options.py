"""The options of ``train`` that say what crosses from a worker to the server."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nmt_async.errors import UserError
from nmt_async.options import GIVEN, OtherThan, option
from nmt_async.sync.compression.settings import DTYPES, LocalGradients, PushSettings
from nmt_async.sync.optimizers.settings import OptimizerSettings

GROUP = "What crosses"
LOCAL_OPTIMIZERS = ("none", "sgd", "adam")


@dataclass(frozen=True)
class PushOptions:
    """How a worker makes a push of the gradients that it computed."""

    push_dtype: str = option(
        "float32",
        "In which numbers gradients cross; what bfloat16 rounds off is added to the worker's next gradient.",
        group=GROUP,
        choices=DTYPES,
    )

    drop_gradients: float = option(
        0.0,
        "Share of a gradient's numbers, the smallest, that do not cross (0.99); they are added to the worker's next "
        "gradient.",
        group=GROUP,
    )
    drop_threshold: str = option(
        "whole",
        "Numbers cross that are among the largest of the whole gradient, or of their matrix, as models without layer "
        "normalisation need it (--model rnn, --norm none).",
        group=GROUP,
        choices=("whole", "matrix"),
        only_with={"drop_gradients": GIVEN},
    )

    local_gradients: bool = option(
        False,
        "A worker computes on parameters that what it has not sent has moved, so that its copy does not lag.",
        group=GROUP,
        only_with={"drop_gradients": GIVEN},
    )

    local_optimizer: str = option(
        "none",
        "Between the batches that it sums for a push, a worker steps its own copy of the parameters with this, at the "
        "run's rate.",
        group=GROUP,
        choices=LOCAL_OPTIMIZERS,
        only_with={"local_accumulate": OtherThan(1)},
    )

    def check_pushes(self) -> None:
        """Raises UserError for a share that cannot be."""
        if not 0.0 <= self.drop_gradients < 1.0:
            raise UserError(f"--drop-gradients: {self.drop_gradients} is not from 0 to below 1.")

    def pushes_with(self, optimizer: OptimizerSettings, pushes: int) -> PushSettings:
        """How a push is made.

        Args:
            optimizer: the server's.
            pushes: that an update sums, in the end.

        Raises:
            UserError: a share that cannot be.
        """
        self.check_pushes()
        local = replace(
            optimizer, name=self.local_optimizer, weight_decay=0.0, smoothing=0.0, momentum=0.0, nesterov=False
        )
        descent = 1.0 / (1.0 - optimizer.momentum) if optimizer.name == "sgd" else None
        return PushSettings(
            self.push_dtype,
            self.drop_gradients,
            self.drop_threshold == "matrix",
            LocalGradients(pushes, descent) if self.local_gradients else None,
            None if self.local_optimizer == "none" else local,
        )
