"""The options of ``train``: one declaration for the command line, the configuration file and the code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError
from nmt_async.model.configuration import ModelOptions
from nmt_async.options import converted, option, without_meaningless
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.optimizers.settings import OPTIMIZERS, OptimizerSettings
from nmt_async.sync.schedule import DECAYS, Schedule
from nmt_async.training.cluster_options import ClusterOptions
from nmt_async.training.waiting_options import BOUNDS

progress_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs"))
stop_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs", "hours", "minutes"))


_WITH_ADAM = {"optimizer": ("adam", "adamw", "muon")}
METRICS = ("cross-entropy", "bleu", "chrf")
MOST = 1_000_000_000
"""Above it a number is a slip of the hand."""


MOST_STEPS = 99
"""Of the Newton-Schulz iteration, as torch has it."""
PROBABILITIES = (
    "adam_beta1", "adam_beta2", "exponential_smoothing", "label_smoothing", "lr_floor", "momentum", "adan_beta1",
    "adan_beta2", "adan_beta3", "lion_beta1", "lion_beta2",
)  # fmt: skip
"""Options from 0 to below 1."""


@dataclass(frozen=True)
class InitialOptions:
    """What a run begins with."""

    init_from: Path | None = option(
        None,
        "Begin with the parameters and sizes of this model: a run, a checkpoint, or what import made.",
        group="Model",
        flags=("--init-from", "--pretrained-model"),
        metavar="RUN",
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """Learning rate, its schedule, and the optimizer."""

    learn_rate: float = option(0.001, "Learning rate at its peak.", group="Optimizer", flags=("--learn-rate", "-l"))
    lr_warmup: Quantity = option(
        Quantity(1000, "updates"),
        "The rate grows linearly over this many updates, tokens (2Mt) or epochs (1e).",
        group="Optimizer",
        parse=progress_quantity,
        metavar="AMOUNT",
    )
    lr_decay: str = option("inv-sqrt", "How the rate falls after warm-up.", group="Optimizer", choices=DECAYS)
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
    optimizer: str = option(
        "adam",
        f"{'; '.join(f'{name}: {summary}' for name, summary in OPTIMIZERS.items())}.",
        group="Optimizer",
        choices=tuple(OPTIMIZERS),
    )
    weight_decay: float | None = option(
        None,
        "Shrink the parameters by this times the rate at each update (default: 0.01 with adamw, else 0).",
        group="Optimizer",
        only_with={"optimizer": ("adamw", "muon", "adan", "lion", "sgd")},
    )
    momentum: float | None = option(
        None,
        "How much of the momentum an update keeps (default: 0.95 with muon, 0.9 with sgd).",
        group="Optimizer",
        only_with={"optimizer": ("muon", "sgd")},
    )
    nesterov: bool = option(
        True,
        "Nesterov's momentum, which steps ahead of itself.",
        group="Optimizer",
        only_with={"optimizer": ("muon", "sgd")},
    )
    muon_rows: int = option(
        0,
        "Make blocks of at most so many rows orthogonal, which costs less; 0: whole matrices.",
        group="Optimizer constants",
        only_with={"optimizer": "muon"},
    )
    muon_steps: int = option(
        5, "Steps of the Newton-Schulz iteration.", group="Optimizer constants", only_with={"optimizer": "muon"}
    )
    adam_beta1: float = option(
        0.9, "Adam's decay of the first moment.", group="Optimizer constants", only_with=_WITH_ADAM
    )
    adam_beta2: float = option(
        0.98, "Adam's decay of the second moment.", group="Optimizer constants", only_with=_WITH_ADAM
    )
    adam_epsilon: float = option(1e-9, "Adam's epsilon.", group="Optimizer constants", only_with=_WITH_ADAM)
    adan_beta1: float = option(
        0.98, "Adan's decay of the gradient.", group="Optimizer constants", only_with={"optimizer": "adan"}
    )
    adan_beta2: float = option(
        0.92, "Adan's decay of the gradient's change.", group="Optimizer constants", only_with={"optimizer": "adan"}
    )
    adan_beta3: float = option(
        0.99, "Adan's decay of the second moment.", group="Optimizer constants", only_with={"optimizer": "adan"}
    )
    lion_beta1: float = option(
        0.9, "Lion's weight of the momentum in a step.", group="Optimizer constants", only_with={"optimizer": "lion"}
    )
    lion_beta2: float = option(
        0.99, "Lion's decay of the momentum.", group="Optimizer constants", only_with={"optimizer": "lion"}
    )
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
        decay = 0.01 if self.optimizer == "adamw" else 0.0
        momentum = 0.9 if self.optimizer == "sgd" else 0.95
        return OptimizerSettings(
            name=self.optimizer,
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
        if not 0 <= self.muon_rows <= MOST:
            raise UserError(f"--muon-rows: {self.muon_rows} is not a number from 0 to {MOST:,}.")
        if not 1 <= self.muon_steps <= MOST_STEPS:
            raise UserError(f"--muon-steps: {self.muon_steps} is not a number from 1 to {MOST_STEPS}.")

    def schedule(self, stop_after: Quantity | None) -> Schedule:
        """The learning-rate schedule.

        Raises:
            UserError: linear or cosine decay without an end, or inverse square root without a warm-up to begin at.
        """
        if self.lr_decay == "inv-sqrt" and not self.lr_warmup.amount:
            raise UserError(
                "--lr-warmup 0 does not fit --lr-decay inv-sqrt, which measures the decay by the warm-up; give a "
                "warm-up, or --lr-decay none."
            )
        end = None
        if self.lr_decay in ("linear", "cosine"):
            end = self.lr_decay_end or stop_after
            if end is None or end.unit in ("hours", "minutes"):
                raise UserError(
                    f"--lr-decay {self.lr_decay} needs --lr-decay-end, or a --stop-after in updates, tokens or epochs."
                )
        floor = 0.0 if self.lr_decay == "none" else self.lr_floor
        return Schedule(self.learn_rate, self.lr_warmup, self.lr_decay, end, floor)


@dataclass(frozen=True)
class BatchSizeOptions:
    """How large a batch and a sentence may be."""

    mini_batch_words: int = option(
        2048,
        "Target tokens in a batch, which makes one push; a longer sentence is a batch of its own.",
        group="Batches",
    )
    max_length: int = option(
        256, "Leave out training pairs with more subwords than this on either side.", group="Batches"
    )


@dataclass(frozen=True)
class BatchOptions(BatchSizeOptions):
    """What a batch is."""

    seed: int = option(1, "Seed of the initial parameters, of shuffling and of dropout.", group="Batches")


@dataclass(frozen=True)
class ValidationOptions:
    """When and how the model is validated, and when training stops."""

    valid_freq: Quantity = option(
        Quantity(500, "updates"),
        "Validate every so many updates, tokens, epochs or minutes (10min).",
        group="Validation and stopping",
        parse=stop_quantity,
        metavar="AMOUNT",
        changeable=True,
    )
    valid_translate: bool = option(
        True,
        "Translate the validation set for BLEU and chrF.",
        group="Validation and stopping",
        changeable=True,
        only_with={"metric": "cross-entropy"},
    )
    valid_beam_size: int = option(
        4,
        "Beam size of validation's translations.",
        group="Validation and stopping",
        changeable=True,
        only_with={"valid_translate": True},
    )
    valid_sentences: int = option(
        0,
        "Translate this many validation sentences only; 0: all.",
        group="Validation and stopping",
        changeable=True,
        only_with={"valid_translate": True},
    )
    early_stopping: int = option(
        0,
        "Stop after this many validations in a row without a better one; 0: never.",
        group="Validation and stopping",
        changeable=True,
    )
    metric: str = option(
        "cross-entropy",
        "The score that decides which validation is better.",
        group="Validation and stopping",
        choices=METRICS,
        flags=("--metric", "--early-stopping-metric"),
    )
    stop_after: Quantity | None = option(
        None,
        "Stop after so many updates (20k), tokens (1Gt), epochs (10e), hours (2h) or minutes (30min) of training.",
        group="Validation and stopping",
        parse=stop_quantity,
        metavar="AMOUNT",
        flags=("--stop-after", "--after"),
        changeable=True,
    )


@dataclass(frozen=True)
class SavingOptions:
    """What is reported and saved, and when."""

    disp_freq: Quantity = option(
        Quantity(100, "updates"),
        "Report every so many updates, tokens, epochs or minutes.",
        group="Reports and checkpoints",
        parse=stop_quantity,
        metavar="AMOUNT",
        changeable=True,
    )
    save_freq: Quantity = option(
        Quantity(1000, "updates"),
        "Save a checkpoint every so many updates, tokens, epochs or minutes.",
        group="Reports and checkpoints",
        parse=stop_quantity,
        metavar="AMOUNT",
        changeable=True,
    )
    keep_last: int = option(
        2, "How many of the newest checkpoints to keep.", group="Reports and checkpoints", changeable=True
    )
    keep_best: int = option(
        1, "How many of the best models (by --metric) to keep.", group="Reports and checkpoints", changeable=True
    )
    tensorboard: bool = option(
        False,
        "Write the figures to RUN/tensorboard too; needs pip install 'nmt-async[tensorboard]'.",
        group="Reports and checkpoints",
        changeable=True,
    )


@dataclass(frozen=True)
class RunOptions(
    ClusterOptions, ModelOptions, InitialOptions, OptimizerOptions, BatchOptions, ValidationOptions, SavingOptions
):
    """All that a run is made of, and where it is written."""

    out: Path = option(
        Path("run"), "The run's folder; a run that is there already is resumed.", group="Run", metavar="RUN"
    )

    def __post_init__(self) -> None:
        at_least = {
            "mini_batch_words": 1,
            "local_accumulate": 1,
            "max_length": 1,
            "valid_beam_size": 1,
            "keep_last": 1,
            "keep_best": 0,
        }
        at_least |= {"early_stopping": 0, "valid_sentences": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')}: {getattr(self, name)} is too small; give {least} or more."
                )
        for name in BOUNDS:
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is too small; give 0 or more.")
        for name in (*at_least, *BOUNDS, "accumulate"):
            if (getattr(self, name) or 0) > MOST:
                raise UserError(
                    f"--{name.replace('_', '-')}: {getattr(self, name)} is too large; give at most {MOST:,}."
                )
        for name in ("valid_freq", "disp_freq", "save_freq", "stop_after"):
            value = getattr(self, name)
            if value is not None and value.amount <= 0:
                raise UserError(f"--{name.replace('_', '-')}: {value} must be above 0.")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed: {self.seed} is not from 0 to 2^63 - 1.")
        if self.cluster == "simulated":
            self.cluster_profile()
        self.check_constants()
        self.schedule(self.stop_after)


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """A run's, and whether it is begun."""

    dry_run: bool = option(
        False, "Print sizes, memory and batches an epoch, and stop.", group="Run", flags=("--dry-run",)
    )


def options_of_run(values: Mapping[str, Any], where: str) -> TrainOptions:
    """The options that a run's folder holds, by their keys.

    An option that means nothing beside the others was accepted once: its default stands for it.

    Raises:
        UserError: as `from_mapping` does.
    """
    found = converted(TrainOptions, values, where)
    warmup = found.get("lr_warmup", OptimizerOptions.lr_warmup)
    if not warmup.amount and found.get("lr_decay", OptimizerOptions.lr_decay) == "inv-sqrt":
        found["lr_decay"] = "none"  # which is what it did
    return without_meaningless(TrainOptions(**found))
