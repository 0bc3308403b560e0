"""The options of ``simulate``: which cluster, which modes, which batches, which model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nmt_async.cluster.profile import PRESETS, ClusterProfile, profile_for
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import PRESETS as MODELS
from nmt_async.model.configuration import ModelOptions
from nmt_async.options import GIVEN, OtherThan, option
from nmt_async.planning.modes import Mode, counts_named, modes_named, workers_named
from nmt_async.quantity import FACTORS
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import LOCAL, WAYS, Way
from nmt_async.text.plan import BatchPlan

if TYPE_CHECKING:
    from nmt_async.text.prepared import PreparedData

CLUSTER, MACHINES, BATCHES, RESULT = "Cluster", "Machines", "Batches and model", "Result"
MOST_OWN_UPDATES = 10_000
VOCABULARY = 32_000
"""Subwords of the joint vocabulary that a model named by its preset has where no data says otherwise."""


@dataclass(frozen=True)
class SimulateOptions:
    """What is simulated."""

    profile: str = option(
        "paper",
        f"Speeds, jitter, failures, links and server: {', '.join(PRESETS)}, or a file that bench wrote.",
        group=CLUSTER,
        metavar="PROFILE",
    )
    workers: str = option(
        "1..64", "Numbers of workers: 1,2,8, or 1..4096, which doubles from 1 on.", group=CLUSTER, metavar="LIST"
    )
    repeat: bool = option(
        False, "Repeat the workers of the profile's file where it has fewer than asked for.", group=CLUSTER,
        flags=("--repeat",),
    )  # fmt: skip
    nodes: str = option(
        "1", "Numbers of machines, each with so many workers and a server of its own: 1,2,8, or 1..512.",
        group=MACHINES, metavar="LIST",
    )  # fmt: skip
    between: str | None = option(
        None, f"How machines exchange, with commas between them: {', '.join(WAYS)} (default: all of them). Workers in "
        "sync are left out in lagged.",
        group=MACHINES, metavar="LIST", only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    local_updates: int = option(
        OuterSettings().updates, "In local: K, the updates that a machine makes of its own between two exchanges.",
        group=MACHINES, only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    outer_fragments: int = option(
        1, "In local: P, parts of the parameters that are exchanged one after another, while nobody waits.",
        group=MACHINES, only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    outer_dtype: str = option(
        "float32", "In local: in which numbers differences cross.", group=MACHINES, choices=("float32", "bfloat16"),
        only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    link_speed: str | None = option(
        None, "Of each machine's link to the others: 100Mbit, 10Gbit (default: the profile's).", group=MACHINES,
        metavar="SPEED", only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    link_latency: float | None = option(
        None, "Milliseconds that a message between machines takes (default: the profile's).", group=MACHINES,
        metavar="MS", only_with={"nodes": OtherThan("1")},
    )  # fmt: skip
    modes: str = option(
        "sync,async,hybrid:4,hybrid:W,local:4",
        "sync, sync:N, async, hybrid:N, local:N; behind it +oldest:K, +restart, +staleness:K, +fastest:M or +balance, "
        "with commas between them; W for a number is that of workers.",
        group=CLUSTER,
        metavar="LIST",
    )
    data: Path | None = option(
        None, "Take the batches of this folder, which prepare wrote (default: each batch has "
        "--mini-batch-words).", group=BATCHES,
        metavar="DATA",
    )  # fmt: skip
    mini_batch_words: int = option(2048, "Target tokens in a batch.", group=BATCHES)
    max_length: int | None = option(
        None, "With --data: leave out pairs with more subwords on either side (default: 256).", group=BATCHES,
        only_with={"data": GIVEN},
    )  # fmt: skip
    model_size: str = option(
        "base",
        f"Parameters that cross the link, such as 60M, or the model's preset: {', '.join(MODELS['transformer'])}.",
        group=BATCHES,
        metavar="SIZE",
    )
    batches: int = option(8, "How many batches each worker computes in the simulation, at least.", group=BATCHES)
    seed: int = option(1, "Seed of jitter, pauses, failures and shuffling.", group=BATCHES)
    json: bool = option(False, "Print figures as JSON.", group=RESULT, flags=("--json",))
    out: Path | None = option(
        None, "Write predictions.csv and plots of it into this folder.", group=RESULT, metavar="DIR"
    )

    def __post_init__(self) -> None:
        for name in ("mini_batch_words", "batches", "max_length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give 1 or more.")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed: {self.seed} is not from 0 to 2^63 - 1.")
        if self.repeat and self.profile in PRESETS:
            raise UserError(f"--repeat is for a profile's file; {self.profile} has as many workers as asked for.")
        self.mode_list()
        if max(self.machine_counts()) > 1:
            self._check_machines()
        self._profile(max(self.worker_counts()) * max(self.machine_counts()))
        _model_size(self.model_size)

    def _check_machines(self) -> None:
        if not any(way.takes(mode.rule(1).mode) for mode in self.mode_list() for way in self.ways()):
            raise UserError(
                f"--modes {self.modes}: its workers wait for an update, and --between {self.between} waits for nobody; "
                f"choose another mode, or another way."
            )
        if len(self.machine_counts()) > 1 < len(self.worker_counts()):
            raise UserError("--nodes and --workers are two lists; give one number of workers for each machine.")
        if self.link_latency is not None and not 0 <= self.link_latency <= MOST_LATENCY:
            raise UserError(f"--link-latency: {self.link_latency:g} is not from 0 to {MOST_LATENCY:,} milliseconds.")
        if self.link_speed is not None:
            link_speed(self.link_speed)
        outer = self.outer()
        if LOCAL not in self.ways() and outer != OuterSettings():
            raise UserError("--local-updates, --outer-fragments and --outer-dtype are for --between local.")

    def outer(self) -> OuterSettings:
        """The outer step of machines that make updates of their own.

        Raises:
            UserError: there is none of these numbers.
        """
        if not 1 <= self.local_updates <= MOST_OWN_UPDATES:
            raise UserError(f"--local-updates: {self.local_updates} is not from 1 to {MOST_OWN_UPDATES:,}.")
        try:
            return OuterSettings(self.local_updates, fragments=self.outer_fragments, dtype=self.outer_dtype)
        except ValueError as error:
            raise UserError(f"--outer-fragments: {error}.") from None

    def mode_list(self) -> tuple[Mode, ...]:
        """The modes."""
        return modes_named(self.modes)

    def worker_counts(self) -> tuple[int, ...]:
        """The numbers of workers, ascending."""
        return workers_named(self.workers)

    def machine_counts(self) -> tuple[int, ...]:
        """The numbers of machines, ascending."""
        return counts_named(self.nodes, "--nodes", "machines")

    def ways(self) -> tuple[Way, ...]:
        """How several machines exchange.

        Raises:
            UserError: a name of none.
        """
        names = list(WAYS) if self.between is None else [name.strip() for name in self.between.split(",")]
        for name in names:
            if name not in WAYS:
                raise UserError(f"--between: {shown(name)} is not one of {', '.join(WAYS)}.")
        return tuple(WAYS[name] for name in names) if max(self.machine_counts()) > 1 else ()

    def cluster_profile(self, workers: int) -> ClusterProfile:
        """The profile of so many workers, with the link that was asked for.

        Raises:
            UserError: there is none, or it has fewer.
        """
        profile = self._profile(workers)
        link = profile.between
        if self.link_speed is not None:
            link = replace(link, bytes_per_second=link_speed(self.link_speed))
        if self.link_latency is not None:
            link = replace(link, latency=self.link_latency / 1000)
        return replace(profile, between=link)

    def _profile(self, workers: int) -> ClusterProfile:
        if self.repeat:
            whole = profile_for(self.profile, None)
            return replace(whole, workers=tuple(islice(cycle(whole.workers), workers)))
        try:
            return profile_for(self.profile, workers)
        except UserError as error:
            if os.path.isfile(self.profile) and "or fewer" in str(error):
                raise UserError(f"{str(error).removesuffix('.')}, or --repeat to let them come again.") from None
            raise

    def sent(self) -> int:
        """Numbers that a pull and a push bring over the link."""
        import torch

        from nmt_async.model.build import build_model
        from nmt_async.model.parameters import FlatLayout

        size = _model_size(self.model_size)
        if size is not None:
            return size
        data = self._data
        model = ModelOptions(preset=self.model_size)
        if data is None:
            configuration = model.configuration(VOCABULARY, VOCABULARY, True)
        else:
            configuration = model.configuration(data.source_vocabulary.size, data.target_vocabulary.size, data.joint)
        with torch.device("meta"):
            return FlatLayout(build_model(configuration)).size

    @cached_property
    def _data(self) -> PreparedData | None:
        from nmt_async.text.prepared import PreparedData

        return PreparedData.open(self.data) if self.data is not None else None

    def plans(self) -> Callable[[int, int], BatchPlan]:
        """The plan for so many pushes of so many parts.

        Raises:
            UserError: no pair of the data is short enough.
        """
        from nmt_async.planning.simulation import even_plan

        data = self._data
        if data is None:
            return lambda pushes, parts: even_plan(self.mini_batch_words, pushes, parts)
        source, target = np.asarray(data.train.source.lengths), np.asarray(data.train.target.lengths)
        limit = self.max_length if self.max_length is not None else 256
        fitting = np.maximum(source, target) <= limit
        if not fitting.any():
            raise UserError(f"--max-length {limit}: no training pair in {self.data} is so short.")
        source, target = source[fitting], target[fitting]
        mixture = None if data.corpora is None else data.corpora.mixture(np.flatnonzero(fitting))
        return lambda _, parts: BatchPlan(
            source, target, self.mini_batch_words, self.seed, parts=parts, mixture=mixture
        )


MOST_LATENCY = 1_000_000
BITS = {"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}


def link_speed(text: str) -> float:
    """Bytes a second of ``100Mbit``.

    Raises:
        UserError: it is no such speed.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)(kbit|Mbit|Gbit)", text.strip())
    speed = float(match[1]) * BITS[match[2]] / 8 if match else 0.0
    if not speed:
        raise UserError(f"--link-speed: {shown(text)} is no speed; give it as 100Mbit or 10Gbit.")
    return speed


def _model_size(text: str) -> int | None:
    """The number of parameters that ``text`` gives; None if it names a preset.

    Raises:
        UserError: it is neither.
    """
    if text in MODELS["transformer"]:
        return None
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]+)?)([kMG]?)", text.strip())
    size = round(float(match[1]) * FACTORS[match[2]]) if match else 0
    if size < 1:
        raise UserError(
            f"--model-size: {shown(text)} is neither a number of parameters, such as 60M, nor one of "
            f"{', '.join(MODELS['transformer'])}."
        )
    return size
