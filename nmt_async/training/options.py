"""The options of ``train``: one declaration for the command line, the configuration file and the code."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from nmt_async.cluster.profile import MOST_WORKERS, PRESETS, ClusterProfile, profile_for
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import ModelOptions
from nmt_async.options import option
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.optimizer import OptimizerSettings
from nmt_async.sync.rules import MODES, Rule, rule_for
from nmt_async.sync.schedule import DECAYS, Schedule, Span

progress_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs"))
stop_quantity = partial(parse_quantity, allowed=("updates", "tokens", "epochs", "hours", "minutes"))


def time_quantity(text: str) -> Quantity:
    """Minutes or hours; 0 needs no unit.

    Raises:
        UserError: something else.
    """
    return parse_quantity("0min" if text.strip() == "0" else text, allowed=("hours", "minutes"))


CLUSTERS = ("processes", "simulated")
METRICS = ("cross-entropy", "bleu", "chrf")
MAX_DEFAULT_WORKERS = 4
MOST_THREADS = 4096
MOST = 1_000_000_000
"""Above it a number is a slip of the hand."""


class MissingDevice(UserError):
    """A device that another machine may have, or this one when its driver works."""


@dataclass(frozen=True)
class SyncOptions:
    """How gradients become updates, and where they are computed."""

    sync_mode: str = option(
        "hybrid",
        "sync: all workers wait for each update; async: each push is an update; hybrid: N pushes from anyone are one.",
        group="Updates",
        choices=MODES,
    )
    accumulate: int | None = option(
        None,
        "N: pushes summed before an update; in sync, of each worker (default: the workers' number in hybrid, else 1).",
        group="Updates",
        flags=("--accumulate", "--optimizer-delay"),
    )
    local_accumulate: int = option(
        1,
        "Batches that a worker sums before each push, as Marian's optimizer delay does in asynchronous training.",
        group="Updates",
    )
    workers: int | None = option(
        None, "Worker processes (default: one a CUDA device; on CPU one a core, 4 at most).", group="Devices"
    )
    devices: str = option(
        "cpu",
        "cpu, or CUDA devices as in '0,1' or 'cuda:0,cuda:1'; workers are dealt to them in turn.",
        group="Devices",
        changeable=True,
    )
    cpu_threads: int | None = option(
        None, "Threads of each worker on CPU (default: its share of the cores).", group="Devices", changeable=True
    )

    def device_list(self) -> list[str]:
        """The device of each worker, as torch names it.

        Raises:
            UserError: a device that this machine does not have.
        """
        names = [name.strip() for name in self.devices.replace(" ", ",").split(",") if name.strip()]
        devices = [f"cuda:{name}" if name.isdigit() else "cuda:0" if name == "cuda" else name for name in names]
        for device in devices:
            _check_device(device)
        if not devices:
            raise UserError("--devices names no device; give cpu, or numbers of CUDA devices such as 0,1.")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers: {self.workers} is too few; give 1 or more.")
        if self.workers is not None and self.workers > MOST_WORKERS:
            raise UserError(f"--workers: {self.workers} is too many; give {MOST_WORKERS:,} or fewer.")
        return [devices[index % len(devices)] for index in range(self.workers or self._default_workers(devices))]

    def _default_workers(self, devices: list[str]) -> int:
        return min(available_cores(), MAX_DEFAULT_WORKERS) if devices == ["cpu"] else len(devices)

    def _computing_processes(self) -> int:
        return len(self.device_list())

    def rule(self) -> Rule:
        """The rule that these options name.

        Raises:
            UserError: counts that the mode does not take.
        """
        workers = len(self.device_list())
        try:
            return rule_for(self.sync_mode, workers, self.pushes_summed)
        except ValueError as error:
            raise UserError(f"--sync-mode {self.sync_mode} --accumulate {self.accumulate}: {error}.") from None

    @property
    def pushes_summed(self) -> int:
        """N, with its default resolved."""
        if self.accumulate is not None:
            return self.accumulate
        return len(self.device_list()) if self.sync_mode == "hybrid" else 1

    def threads(self) -> int:
        """Threads of each worker on CPU."""
        if self.cpu_threads is not None:
            if self.cpu_threads < 1:
                raise UserError(f"--cpu-threads: {self.cpu_threads} is too few; give 1 or more.")
            if self.cpu_threads > MOST_THREADS:
                raise UserError(f"--cpu-threads: {self.cpu_threads} is too many; give {MOST_THREADS:,} or fewer.")
            return self.cpu_threads
        return max(1, available_cores() // self._computing_processes())


@dataclass(frozen=True)
class ClusterOptions(SyncOptions):
    """Whether the workers are processes, or simulated in one."""

    worker_timeout: Quantity = option(
        Quantity(10, "minutes"),
        "Replace a worker that has been silent for so many minutes (10min) or hours, and for 20 times the slowest "
        "batch; 0: never.",
        group="Devices",
        parse=time_quantity,
        metavar="TIME",
        changeable=True,
    )
    cluster: str = option(
        "processes",
        "processes: real workers; simulated: virtual ones in one process, with real gradients and a virtual clock.",
        group="Devices",
        choices=CLUSTERS,
    )
    profile: str | None = option(
        None,
        f"Of the simulated cluster: {', '.join(PRESETS)} (default: paper), or a file that bench wrote.",
        group="Devices",
        metavar="PROFILE",
    )

    @property
    def timeout_seconds(self) -> float:
        """Of `worker_timeout`."""
        return self.worker_timeout.amount * (3600 if self.worker_timeout.unit == "hours" else 60)

    def cluster_profile(self) -> ClusterProfile:
        """The simulated cluster's.

        Raises:
            UserError: there is no such profile, or it has fewer workers than asked for.
        """
        return profile_for(self.profile or "paper", self.workers)

    def _default_workers(self, devices: list[str]) -> int:
        if self.cluster == "simulated":
            return len(self.cluster_profile().workers)
        return super()._default_workers(devices)

    def _computing_processes(self) -> int:
        return 1 if self.cluster == "simulated" else super()._computing_processes()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    try:
        kind = torch.device(device).type
    except (RuntimeError, ValueError, OverflowError):
        kind = ""
    if kind != "cuda":
        raise UserError(
            f"--devices: {shown(device)} is not a device; give cpu, or numbers of CUDA devices such as 0,1."
        )
    if not torch.cuda.is_available():
        raise MissingDevice(f"--devices: {device} asked for, but torch finds no CUDA here; use --devices cpu.")
    if (torch.device(device).index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise MissingDevice(f"--devices: there is no {device}; this machine has {count} CUDA devices, counted from 0.")


@dataclass(frozen=True)
class InitialOptions:
    """What a run begins with."""

    init_from: Path | None = option(
        None,
        "Begin with the parameters, and so the sizes, of this run's model (or of a checkpoint, or import's).",
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
        parse=progress_quantity,
        metavar="AMOUNT",
    )
    lr_floor: float = option(0.0, "The rate never falls below this fraction of its peak.", group="Optimizer")
    adam_beta1: float = option(0.9, "Adam's decay of the first moment.", group="Optimizer")
    adam_beta2: float = option(0.98, "Adam's decay of the second moment.", group="Optimizer")
    adam_epsilon: float = option(1e-9, "Adam's epsilon.", group="Optimizer")
    clip_norm: float = option(
        1.0, "Clip the gradient per token, summed over the update, to this norm; 0: never.", group="Optimizer"
    )
    exponential_smoothing: float = option(
        0.0, "Moving average of parameters: weight of the newest, such as 0.001; 0: none.", group="Optimizer"
    )
    label_smoothing: float = option(0.1, "Label smoothing in the training loss.", group="Optimizer")

    def settings(self) -> OptimizerSettings:
        """The optimizer's constants.

        Raises:
            UserError: a constant out of its range.
        """
        probabilities = ("adam_beta1", "adam_beta2", "exponential_smoothing", "label_smoothing", "lr_floor")
        for name in probabilities:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not from 0 to below 1.")
        for name in ("learn_rate", "adam_epsilon"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not a number above 0.")
        if not 0.0 <= self.clip_norm < math.inf:
            raise UserError(f"--clip-norm: {self.clip_norm} is not a number from 0 on.")
        return OptimizerSettings(
            self.adam_beta1, self.adam_beta2, self.adam_epsilon, self.clip_norm, self.exponential_smoothing
        )

    def schedule(self, stop_after: Quantity | None) -> Schedule:
        """The learning-rate schedule.

        Raises:
            UserError: linear or cosine decay without an end.
        """
        end = self.lr_decay_end
        if self.lr_decay in ("linear", "cosine") and end is None:
            if stop_after is None or stop_after.unit in ("hours", "minutes"):
                raise UserError(
                    f"--lr-decay {self.lr_decay} needs --lr-decay-end, or a --stop-after in updates, tokens or epochs."
                )
            end = stop_after
        span = Span(end.amount, end.unit) if end else None
        warmup = Span(self.lr_warmup.amount, self.lr_warmup.unit)
        return Schedule(self.learn_rate, warmup, self.lr_decay, span, self.lr_floor)


@dataclass(frozen=True)
class BatchSizeOptions:
    """How large a batch and a sentence may be."""

    mini_batch_words: int = option(
        2048, "Target tokens in a batch, that is in one push; longer sentences make a batch alone.", group="Batches"
    )
    max_length: int = option(
        256, "Leave out training pairs with more subwords than this on either side.", group="Batches"
    )


@dataclass(frozen=True)
class BatchOptions(BatchSizeOptions):
    """What a batch is."""

    seed: int = option(1, "Of initial parameters, shuffling and dropout.", group="Batches")


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
        True, "Translate the validation set for BLEU and chrF.", group="Validation and stopping", changeable=True
    )
    valid_beam_size: int = option(
        4, "Beam size of validation's translations.", group="Validation and stopping", changeable=True
    )
    valid_sentences: int = option(
        0, "Translate this many validation sentences only; 0: all.", group="Validation and stopping", changeable=True
    )
    early_stopping: int = option(
        0,
        "Stop after this many validations in a row without a better one; 0: never.",
        group="Validation and stopping",
        changeable=True,
    )
    metric: str = option(
        "cross-entropy",
        "What decides which validation is better.",
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
    keep_last: int = option(2, "Newest checkpoints to keep.", group="Reports and checkpoints", changeable=True)
    keep_best: int = option(1, "Best models by --metric to keep.", group="Reports and checkpoints", changeable=True)
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

    out: Path = option(Path("run"), "The run's folder; if it holds a run, that is resumed.", group="Run", metavar="RUN")

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
        for name in (*at_least, "accumulate"):
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
        if self.profile is not None and self.cluster != "simulated":
            raise UserError("--profile describes a simulated cluster; give --cluster simulated with it.")
        if self.cluster == "simulated":
            self.cluster_profile()
        self.settings()
        self.schedule(self.stop_after)


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """A run's, and whether it is begun."""

    dry_run: bool = option(
        False, "Print sizes, memory and batches an epoch, and stop.", group="Run", flags=("--dry-run",)
    )
