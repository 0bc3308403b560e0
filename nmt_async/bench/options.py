"""The options of the commands bench, bench decode and bench prepare. None needs torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from nmt_async.devices import devices_named
from nmt_async.errors import UserError
from nmt_async.model.configuration import ModelOptions
from nmt_async.options import option
from nmt_async.training.cluster_options import SyncOptions, available_cores
from nmt_async.training.optimizer_options import StepOptions
from nmt_async.training.options import BatchOptions, TrainOptions
from nmt_async.training.staleness_options import PredictionOptions

GROUP = "Measurement"
BOUND = "independent"
"""What throughput is compared with."""
YARDSTICK = "by-hand"
"""What speed of decoding is compared with."""
ENCODER, PREPARE, FIRST_BATCH = "sentencepiece", "prepare", "first batch"
"""What bench prepare measures."""
AGAINST = ("plain", "independent", "ddp", "one-worker", "sync", "async", "gradients", "simulated")
ENGINES = ("torch", "torch-int8", "ctranslate2", "by-hand", "by-hand-int8")
"""What translates: translate with its engines torch, torch in int8 and ctranslate2, and CTranslate2's own
translate_batch in float32 and int8."""


@dataclass(frozen=True)
class BenchOptions(SyncOptions, ModelOptions, StepOptions, PredictionOptions, BatchOptions):
    """What is measured, and how long."""

    against: tuple[str, ...] = option(
        ("plain", "independent", "ddp", "one-worker"),
        "Measure also: plain (one plain loop with Adam), independent (as many of them, which exchange nothing: the "
        "bound), ddp (torch DistributedDataParallel over Gloo), one-worker, sync, async, gradients (a worker's "
        "computations alone), simulated (the setting in a simulated cluster); repeat for several.",
        group=GROUP,
        choices=AGAINST,
    )
    devices: str = option("cpu", "cpu: workers are compared on it alone.", group="Devices")
    rounds: int = option(5, "How many turns each contender has.", group=GROUP)
    batches: int = option(8, "Batches of each process in a turn.", group=GROUP)
    profile_out: Path | None = option(
        None, "Write the profile of these workers to this file, for --profile; a hybrid setting measures it "
        "best.", group=GROUP,
        metavar="FILE",
    )  # fmt: skip
    check: bool = option(
        False, "Simulate the setting, sync, async and one-worker with that profile, as far as they are "
        "measured, and compare.",
        group=GROUP, flags=("--check",),
    )  # fmt: skip
    json: bool = option(False, "Print figures as JSON.", group=GROUP, flags=("--json",))

    def __post_init__(self) -> None:
        for name in ("rounds", "batches"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: {getattr(self, name)} is too small; give 1 or more.")
        if (self.profile_out is not None or self.check) and self.batches < 2:
            raise UserError("--batches: a turn's first batch tells nothing about waiting; give 2 or more.")
        if self.profile_out is not None and not os.path.isdir(self.profile_out.parent):
            raise UserError(f"--profile-out {self.profile_out}: there is no folder {self.profile_out.parent}; make it.")
        if set(devices_named(self.devices, "--devices")) != {"cpu"}:
            raise UserError("--devices: bench compares workers on CPU; give cpu.")
        self.device_list()

    @property
    def turns(self) -> int:
        """All contenders' turns, the first round's, which warms up, among them."""
        return (self.rounds + 1) * (1 + len(set(self.against)))

    def train_options(self) -> TrainOptions:
        """The options of a training run like this."""
        shared = {field.name for field in fields(TrainOptions)} & {field.name for field in fields(self)}
        return TrainOptions(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class DecodeBenchOptions:
    """What is measured, and how long."""

    input: Path | None = option(
        None, "Text to translate, plain, gzip or zstd.", group=GROUP, flags=("--input", "-i"), metavar="FILE"
    )
    engines: tuple[str, ...] = option(
        ENGINES,
        "Measure: translate with --engine torch, with --precision int8, and with --engine ctranslate2; CTranslate2 "
        "used by hand, in float32 and in int8; repeat for several.",
        group=GROUP, choices=ENGINES,
    )  # fmt: skip
    beam_size: tuple[int, ...] = option(
        (5, 1), "Hypotheses followed for each sentence; repeat for several.", group=GROUP, flags=("--beam-size", "-b")
    )
    threads: tuple[int, ...] = option(
        (1,), "CPU threads; repeat for several.", group=GROUP, flags=("--threads", "--cpu-threads")
    )
    mini_batch: int = option(64, "Sentences translated at once.", group=GROUP)
    sentences: int = option(1000, "Read so many lines of the text.", group=GROUP)
    length: int | None = option(
        None, "Make every translation so many subwords long, for models that have not learnt yet when to end "
        "(default: as the model says).",
        group=GROUP,
    )  # fmt: skip
    rounds: int = option(5, "How many turns each engine has.", group=GROUP)
    json: bool = option(False, "Print figures as JSON.", group=GROUP, flags=("--json",))

    def __post_init__(self) -> None:
        numbers = {"mini_batch": self.mini_batch, "sentences": self.sentences, "rounds": self.rounds}
        numbers |= {"beam_size": min(self.beam_size, default=0), "threads": min(self.threads, default=0)}
        numbers |= {} if self.length is None else {"length": self.length}
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give 1 or more.")


@dataclass(frozen=True)
class PrepareBenchOptions:
    """What is measured, and how long."""

    pairs: int = option(200_000, "Generate so many sentence pairs; ten million take 1.4 GB.", group=GROUP)
    vocab_size: int = option(1000, "Subwords of the vocabulary with which they are encoded.", group=GROUP)
    rounds: int = option(3, "How many turns each contender has.", group=GROUP)
    threads: int = option(0, "CPU threads; 0: one for each core.", group=GROUP, flags=("--threads", "--cpu-threads"))
    temporary: Path | None = option(
        None, "Put the text, and what is made of it, below this folder, such as one on a slow disk; they are removed "
        "at the end (default: where the system has temporary files).",
        group=GROUP, metavar="DIR",
    )  # fmt: skip
    json: bool = option(False, "Print figures as JSON.", group=GROUP, flags=("--json",))

    def __post_init__(self) -> None:
        for name, least in (("pairs", 1), ("vocab_size", 3), ("rounds", 1), ("threads", 0)):
            if getattr(self, name) < least:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag}: {getattr(self, name)} is too small; give {least} or more.")
        if self.temporary is not None and not self.temporary.is_dir():
            raise UserError(f"--temporary: there is no folder {self.temporary}; make it.")

    @property
    def threads_used(self) -> int:
        """Of both contenders."""
        return self.threads or available_cores()

    @property
    def turns(self) -> int:
        """All contenders' turns."""
        return 2 * self.rounds + 1
