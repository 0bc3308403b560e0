"""The options of ``train``: one declaration for the command line, the configuration file and the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import TrainedModelOptions
from nmt_async.options import NOT_GIVEN, Automatic, converted, option, without_meaningless
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.mixture import CorpusWeights, checked_temperature
from nmt_async.training.cluster_options import ClusterOptions
from nmt_async.training.machine_options import MachineOptions
from nmt_async.training.optimizer_options import OptimizerOptions
from nmt_async.training.staleness_options import StalenessOptions
from nmt_async.training.waiting_options import LEAST

stop_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs", "hours", "minutes"))


METRICS = ("cross-entropy", "bleu", "chrf")
MOST = 1_000_000_000
"""Above it a number is a slip of the hand."""


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


FITTED = Automatic(0)
"""Of a batch's memory: what the device has free."""
_MEMORY = re.compile(r"(\d{1,9})\s*(?:(M)(?:i?B)?|(G)(?:i?B)?)?")


def amount_of_memory(text: str) -> int:
    """``900``, ``900MB`` or ``2GB`` in MiB, or `FITTED`.

    Raises:
        UserError: something else.
    """
    if text == str(FITTED):
        return FITTED
    match = _MEMORY.fullmatch(text.strip())
    if match is None or int(match[1]) < 1:
        raise UserError(f"{shown(text)} is no amount of memory; give auto, or MiB as in 900, 900MB or 2GB.")
    return int(match[1]) * (1024 if match[3] else 1)


@dataclass(frozen=True)
class BatchSizeOptions:
    """How large a batch and a sentence may be."""

    mini_batch_words: int = option(
        2048,
        "Target tokens in a batch, which makes one push; a longer sentence is a batch of its own.",
        group="Batches", only_with={"batch_memory": NOT_GIVEN},
    )  # fmt: skip
    max_length: int = option(
        256, "Leave out training pairs with more subwords than this on either side.", group="Batches"
    )


@dataclass(frozen=True)
class BatchOptions(BatchSizeOptions):
    """What a batch is."""

    seed: int = option(1, "Seed of the initial parameters, of shuffling and of dropout.", group="Batches")


@dataclass(frozen=True)
class BatchMemoryOptions:
    """How much memory a batch may take."""

    batch_memory: int | None = option(
        None,
        "Memory of a worker for what it computes of a batch, in MiB, or as in 2GB: a batch holds as many pairs as have "
        "room, more where they are short (Marian's --mini-batch-fit and --workspace); auto: what is free.",
        group="Batches", parse=amount_of_memory, metavar="SIZE|auto", only_with={"nodes": NOT_GIVEN},
    )  # fmt: skip


@dataclass(frozen=True)
class CorpusOptions:
    """How an epoch is mixed of the corpora that ``prepare --corpora`` was given."""

    corpus_weights: CorpusWeights | None = option(
        None, "Share of each corpus in the sentence pairs of an epoch, as in general=1,news=2; 0 leaves one out "
        "(default: as declared to prepare, else each pair once).",
        group="Batches", metavar="LIST", parse=CorpusWeights.parse,
    )  # fmt: skip
    corpus_temperature: float | None = option(
        None, "Weigh corpora by their sizes to the power of 1/T: 1 takes each pair once, a higher T makes them more "
        "alike (default: as declared to prepare).",
        group="Batches", metavar="T", only_with={"corpus_weights": NOT_GIVEN},
    )  # fmt: skip

    def check_mixture(self) -> None:
        """Raises UserError where the temperature cannot be."""
        if self.corpus_temperature is not None:
            try:
                checked_temperature(self.corpus_temperature)
            except UserError as error:
                raise UserError(f"--corpus-temperature: {error}") from None


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
    ClusterOptions, TrainedModelOptions, InitialOptions, OptimizerOptions, StalenessOptions, CorpusOptions,
    BatchOptions, BatchMemoryOptions, ValidationOptions, SavingOptions,
):  # fmt: skip
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
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give {least} or more.")
        for name in (*at_least, *LEAST, "accumulate"):
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
        self.check_pushes()
        self.check_staleness()
        self.check_mixture()
        self.schedule(self.stop_after)

    def push_settings(self) -> PushSettings:
        """How a worker makes a push of a gradient.

        Raises:
            UserError: options that cannot be.
        """
        return self.pushes_with(self.settings(), self.rule().most_pushes)


@dataclass(frozen=True)
class TrainOptions(MachineOptions, RunOptions):
    """A run's, with which machines it is shared, and whether it is begun."""

    dry_run: bool = option(
        False, "Print sizes, memory and batches an epoch, and stop.", group="Run", flags=("--dry-run",)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_machines()

    @property
    def machines(self) -> int:
        return self.nodes or 1


def options_of_run(values: Mapping[str, Any], where: str) -> TrainOptions:
    """The options that a run's folder holds, by their keys.

    An option that means nothing beside the others was accepted once: its default stands for it.

    Raises:
        UserError: as `from_mapping` does.
    """
    before_there_were_others = {"optimizer": "adam", "weight_prediction": "none"}
    found = {**before_there_were_others, **converted(TrainOptions, values, where)}
    warmup = found.get("lr_warmup", OptimizerOptions.lr_warmup)
    unmeasured = not warmup.amount and found.get("lr_decay_start") is None
    if unmeasured and found.get("lr_decay", OptimizerOptions.lr_decay) == "inv-sqrt":
        found["lr_decay"] = "none"  # which is what it did
    return without_meaningless(TrainOptions(**found))
