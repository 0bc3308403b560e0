"""The options of ``train`` that say what becomes of an update's gradient: the rate, the optimizer, its constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from nmt_async.errors import UserError
from nmt_async.options import OtherThan, option
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.optimizers.settings import OPTIMIZERS, OptimizerSettings
from nmt_async.sync.schedule import DECAYS, Schedule

progress_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs"))

DEFAULT = "muon"
"""The optimizer of a run that is begun without naming one."""


def _with(*optimizers: str) -> dict[str, Any]:
    """The situation of an option that only these read."""
    return {"optimizer": (None, *optimizers) if DEFAULT in optimizers else optimizers}


_WITH_ADAM = _with("adam", "adamw", "muon")
MOST_ROWS = 1_000_000
MOST_STEPS = 99
"""Of Muon's iteration, as torch has it."""
PROBABILITIES = (
    "adam_beta1", "adam_beta2", "exponential_smoothing", "label_smoothing", "lr_floor", "momentum", "adan_beta1",
    "adan_beta2", "adan_beta3", "lion_beta1", "lion_beta2",
)  # fmt: skip
"""Options from 0 to below 1."""


@dataclass(frozen=True)
class RateOptions:
    """The learning rate, and how it changes."""

    learn_rate: float = option(0.001, "Learning rate at its peak.", group="Optimizer", flags=("--learn-rate", "-l"))
    lr_warmup: Quantity = option(
        Quantity(1000, "updates"),
        "The rate grows linearly over this many updates, tokens (2Mt) or epochs (1e).",
        group="Optimizer",
        parse=progress_quantity,
        metavar="AMOUNT",
    )
    lr_decay: str = option("inv-sqrt", "How the rate falls after warm-up.", group="Optimizer", choices=DECAYS)
    lr_decay_start: Quantity | None = option(
        None,
        "Where inv-sqrt begins to fall (default: at the end of warm-up); with it, --lr-warmup may be 0.",
        group="Optimizer",
        only_with={"lr_decay": "inv-sqrt"},
        parse=progress_quantity,
        metavar="AMOUNT",
        flags=("--lr-decay-start", "--lr-decay-inv-sqrt"),
    )
    lr_decay_end: Quantity | None = option(
        None,
        "Where linear or cosine decay ends (default: --stop-after).",
        group="Optimizer",
        only_with={"lr_decay": ("linear", "cosine")},
        parse=progress_quantity,
        metavar="AMOUNT",
    )
    lr_floor: float = option(
        0.0,
        "The rate never falls below this fraction of its peak.",
        group="Optimizer",
        only_with={"lr_decay": ("inv-sqrt", "linear", "cosine")},
    )

    def schedule(self, stop_after: Quantity | None) -> Schedule:
        """The learning-rate schedule.

        Raises:
            UserError: linear or cosine decay without an end, or inverse square root without a warm-up to begin at.
        """
        start = self.lr_decay_start if self.lr_decay == "inv-sqrt" else None
        if start is not None and not start.amount:
            raise UserError("--lr-decay-start: 0 is nowhere to fall from; give an amount above 0, such as 4k.")
        if self.lr_decay == "inv-sqrt" and not self.lr_warmup.amount and start is None:
            raise UserError(
                "--lr-warmup 0 does not fit --lr-decay inv-sqrt, which measures the decay by the warm-up; say with "
                "--lr-decay-start where the rate begins to fall, or give a warm-up, or --lr-decay none."
            )
        end = None
        if self.lr_decay in ("linear", "cosine"):
            end = self.lr_decay_end or stop_after
            if end is None or end.unit in ("hours", "minutes"):
                raise UserError(
                    f"--lr-decay {self.lr_decay} needs --lr-decay-end, or a --stop-after in updates, tokens or epochs."
                )
        floor = 0.0 if self.lr_decay == "none" else self.lr_floor
        return Schedule(self.learn_rate, self.lr_warmup, self.lr_decay, end, floor, start)


@dataclass(frozen=True)
class StepOptions:
    """The optimizer, and its constants."""

    optimizer: str | None = option(
        None,
        f"{'; '.join(f'{name}: {summary}' for name, summary in OPTIMIZERS.items())} (default: {DEFAULT}, or what the "
        "run was begun with).",
        group="Optimizer",
        choices=tuple(OPTIMIZERS),
    )
    weight_decay: float | None = option(
        None,
        "Shrink the parameters by this times the rate at each update (default: 0.01 with adamw, else 0).",
        group="Optimizer",
        only_with=_with("adamw", "muon", "adan", "lion", "sgd"),
    )
    momentum: float | None = option(
        None,
        "How much of the momentum an update keeps (default: 0.95 with muon, 0.9 with sgd).",
        group="Optimizer",
        only_with=_with("muon", "sgd"),
    )
    nesterov: bool = option(
        True,
        "Nesterov's momentum, which steps ahead of itself.",
        group="Optimizer",
        only_with={**_with("muon", "sgd"), "momentum": OtherThan(0.0)},
    )
    muon_rows: int = option(
        32,
        "Make blocks of at most so many rows orthogonal, which costs less than whole matrices; 0: whole matrices.",
        group="Optimizer constants",
        only_with=_with("muon"),
    )
    muon_steps: int = option(
        5,
        "Steps of the iteration that makes blocks orthogonal: 5 and more as in torch.optim.Muon; fewer cost less, are "
        "each as good as can be, and suit blocks of few rows.",
        group="Optimizer constants",
        only_with=_with("muon"),
    )
    adam_beta1: float = option(
        0.9, "Adam's decay of the first moment.", group="Optimizer constants", only_with=_WITH_ADAM
    )
    adam_beta2: float = option(
        0.98, "Adam's decay of the second moment.", group="Optimizer constants", only_with=_WITH_ADAM
    )
    adam_epsilon: float = option(1e-9, "Adam's epsilon.", group="Optimizer constants", only_with=_WITH_ADAM)
    adan_beta1: float = option(
        0.98, "Adan's decay of the gradient.", group="Optimizer constants", only_with=_with("adan")
    )
    adan_beta2: float = option(
        0.92, "Adan's decay of the gradient's change.", group="Optimizer constants", only_with=_with("adan")
    )
    adan_beta3: float = option(
        0.99, "Adan's decay of the second moment.", group="Optimizer constants", only_with=_with("adan")
    )
    lion_beta1: float = option(
        0.9, "Lion's weight of the momentum in a step.", group="Optimizer constants", only_with=_with("lion")
    )
    lion_beta2: float = option(
        0.99, "Lion's decay of the momentum.", group="Optimizer constants", only_with=_with("lion")
    )


@dataclass(frozen=True)
class OptimizerOptions(StepOptions, RateOptions):
    """The whole way from an update's gradient to the next parameters, and the loss that the gradient is of."""

    clip_norm: float = option(
        1.0,
        "Scale the gradient of an update, per token, down to this norm where it is larger; 0: never.",
        group="Optimizer",
    )
    exponential_smoothing: float = option(
        0.0,
        "Keep a moving average of the parameters, in which the newest have this weight, such as 0.001; 0: none.",
        group="Optimizer",
    )
    label_smoothing: float = option(0.1, "Label smoothing in the training loss.", group="Optimizer")

    def settings(self) -> OptimizerSettings:
        """The optimizer's constants.

        Raises:
            UserError: a constant out of its range.
        """
        self.check_constants()
        name = self.optimizer or DEFAULT
        decay = 0.01 if name == "adamw" else 0.0
        momentum = 0.9 if name == "sgd" else 0.95
        return OptimizerSettings(
            name=name,
            beta1=self.adam_beta1,
            beta2=self.adam_beta2,
            epsilon=self.adam_epsilon,
            clip_norm=self.clip_norm,
            smoothing=self.exponential_smoothing,
            weight_decay=decay if self.weight_decay is None else self.weight_decay,
            momentum=momentum if self.momentum is None else self.momentum,
            nesterov=self.nesterov,
            adan_betas=(self.adan_beta1, self.adan_beta2, self.adan_beta3),
            lion_betas=(self.lion_beta1, self.lion_beta2),
            muon_rows=self.muon_rows,
            muon_steps=self.muon_steps,
        )

    def check_constants(self) -> None:
        """Raises UserError for a constant out of its range."""
        for name in PROBABILITIES:
            if getattr(self, name) is not None and not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not from 0 to below 1.")
        for name in ("learn_rate", "adam_epsilon"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not a number above 0.")
        for name in ("clip_norm", "weight_decay"):
            if getattr(self, name) is not None and not 0.0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not a number from 0 on.")
        if not 0 <= self.muon_rows <= MOST_ROWS:
            raise UserError(f"--muon-rows: {self.muon_rows} is not a number from 0 to {MOST_ROWS:,}.")
        if not 1 <= self.muon_steps <= MOST_STEPS:
            raise UserError(f"--muon-steps: {self.muon_steps} is not a number from 1 to {MOST_STEPS}.")
