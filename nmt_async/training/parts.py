"""The parts that a run, its description and a replay build from the same options, and where workers compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt_async.cluster.cluster import Cluster
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.memory import Memory, bytes_shared
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.sharding import owners, shards_of
from nmt_async.cluster.simulated import SimulatedCluster, WorkerGradients
from nmt_async.cluster.simulated_machines import SimulatedMachines
from nmt_async.cluster.worker import WorkerSettings, build_worker, out_of_memory
from nmt_async.devices import devices_named
from nmt_async.errors import RunFailure, UserError
from nmt_async.machines.exchange import Exchange
from nmt_async.model.configuration import BFLOAT16, ModelConfiguration
from nmt_async.model.kernels import Arithmetic, kernels_for, not_in_bfloat16
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.process.sharded_tensor import Shard
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.compression.message import Form
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.sync.corrections.build import build_corrections
from nmt_async.sync.corrections.quantized_pulls import Quantise
from nmt_async.sync.corrections.settings import CorrectionSettings
from nmt_async.sync.journal import Event
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.sync.server import ParameterServer
from nmt_async.text.mixture import Mixture
from nmt_async.text.plan import BatchPlan, BatchRoom
from nmt_async.text.prepared import ParallelStore, PreparedData
from nmt_async.text.read_ahead import ReadAhead
from nmt_async.training.activation_memory import batch_room
from nmt_async.training.initial_model import adopted
from nmt_async.training.options import TrainOptions
from nmt_async.training.validation import InlineValidator, ProcessValidator, Validator
from nmt_async.training.validation_scores import ValidationSettings


def training_plan(options: TrainOptions, data: PreparedData) -> BatchPlan:
    """The batch plan over the pairs that are short enough.

    Raises:
        UserError: no pair is short enough, or the corpora cannot be mixed as the options say.
    """
    source, target = data.train.source.lengths, data.train.target.lengths
    fits = (source <= options.max_length) & (target <= options.max_length)
    if not fits.any():
        raise UserError(f"--max-length {options.max_length}: no training pair in {data.folder} is so short.")
    fitting = np.flatnonzero(fits).astype(np.uint32)
    all_fit = len(fitting) == len(source)
    return BatchPlan(
        source if all_fit else source[fitting],
        target if all_fit else target[fitting],
        options.mini_batch_words if options.batch_memory is None else _room(options, data),
        options.seed,
        None if all_fit else fitting,
        parts=options.local_accumulate,
        mixture=_mixture(options, data, fitting),
    )


def _room(options: TrainOptions, data: PreparedData) -> BatchRoom:
    """What a batch may hold where its memory is given."""
    assert options.batch_memory, "what is free must have been found"
    room = batch_room(model_configuration(options, data), arithmetic_of(options), options.batch_memory << 20)
    if room is None:
        raise UserError(f"--batch-memory {options.batch_memory}: not one pair has room in so many MiB; give more.")
    return room


def arithmetic_of(options: TrainOptions) -> Arithmetic:
    """What the first worker of settled options computes with; its device need not be here."""
    device = devices_named(options.devices, "--devices")[0] if options.devices else options.device_list()[0]
    return Arithmetic(kernels_for(torch.device(device), options.computed_with()), options.precision)


def _mixture(options: TrainOptions, data: PreparedData, fitting: NDArray[np.uint32]) -> Mixture | None:
    """How an epoch is mixed of the data's corpora; None: it holds each pair that is short enough once."""
    weights, temperature = options.corpus_weights, options.corpus_temperature
    flag = "--corpus-weights" if weights is not None else "--corpus-temperature"
    if data.corpora is None:
        if weights is not None or temperature is not None:
            raise UserError(
                f"{flag} means nothing with {data.folder}, which was prepared without --corpora; leave it out."
            )
        return None
    try:
        return data.corpora.mixture(fitting, weights, temperature)
    except UserError as error:
        raise UserError(f"{flag}: {error}" if weights is not None else str(error)) from None


def hidden_matrices(layout: FlatLayout) -> list[Matrix]:
    """What an optimizer treats as matrices, in the vector's order."""
    return [Matrix(*place) for place in layout.hidden()]


@dataclass(frozen=True)
class Shared:
    """By which machines a run is shared.

    Attributes:
        workers: of each, by rank.
        rank: of this one.
    """

    workers: tuple[int, ...]
    rank: int


def build_coordinator(
    options: TrainOptions,
    plan: BatchPlan,
    layout: FlatLayout,
    buffers: Tensor,
    record: Callable[[Event], None],
    warn: Callable[[str], None],
    endless: bool = False,
    residuals: Tensor | None = None,
    shared: Shared | None = None,
) -> Coordinator:
    """Server and plan as the options say; ``buffers[0]`` holds the initial parameters.

    Args:
        layout: of the model's parameters in a buffer.
        residuals: as `residual_rows` gives them.
        endless: whenever the options say that the stream ends.
        shared: by which machines; None: the run is this one's alone.
    """
    matrices = hidden_matrices(layout)
    schedule = options.schedule(options.stop_after)
    rule = options.rule()
    settings, workers = options.settings(), len(options.device_list())
    late = options.way().late if shared is not None and len(shared.workers) > 1 else 0
    staleness = rule.staleness(workers) + late
    corrections = build_corrections(
        options.corrections(), settings, buffers[0], workers, staleness, quantise_in_updates(options, layout)
    )
    server = ParameterServer(buffers, rule, schedule, settings, matrices, corrections, residuals)
    stop = options.stop_after
    last_epoch = int(stop.amount) if stop and stop.unit == "epochs" and stop.amount == int(stop.amount) else None
    if endless:
        last_epoch = None
    if shared is not None:
        outer_settings = options.outer()
        outer = None if outer_settings is None else OuterStep(outer_settings, server.parameters)
        return MachineCoordinator(
            server, plan, record, warn, last_epoch, options.way(), shared.workers, shared.rank, outer
        )  # fmt: skip
    return Coordinator(server, plan, record, warn, last_epoch)


UPDATE_TURNS = 1
"""Of fitting a scale in an update: more take time, and lower the error by a thousandth of itself."""


def quantise_in_updates(options: TrainOptions, layout: FlatLayout) -> Quantise | None:
    """What makes the parameters that workers compute on, in place; None where the options quantise nothing."""
    quantization = options.quantization()
    if quantization is None:
        return None
    return lambda vector: quantise_vector(vector, layout, quantization, vector, UPDATE_TURNS)


def model_configuration(options: TrainOptions, data: PreparedData) -> ModelConfiguration:
    """The model that the options name, for the data's vocabularies.

    Raises:
        UserError: they name none that there can be.
    """
    options = adopted(options)
    # A model that somebody trained may have one matrix for two vocabularies of like indexes.
    joint = data.joint or options.init_from is not None
    return options.configuration(data.source_vocabulary.size, data.target_vocabulary.size, joint)


def checked_configuration(options: TrainOptions, data: PreparedData) -> ModelConfiguration:
    """As `model_configuration`, of a model that this machine is to train.

    Raises:
        UserError: there is none, or a device, or the model, does not compute in the precision of the options.
    """
    configuration = model_configuration(options, data)
    if options.precision != BFLOAT16:
        return configuration
    reasons = (not_in_bfloat16(torch.device(device)) for device in dict.fromkeys(options.device_list()))
    reason = next(filter(None, reasons), None)
    if configuration.model != "transformer":
        reason = "only Transformers are trained in it"
    if reason is not None:
        raise UserError(f"--precision {options.precision}: {reason}; leave it out.")
    return configuration


def shared_memory(
    devices: Sequence[str], layout: FlatLayout, push: PushSettings, warn: Callable[[str], None]
) -> Memory:
    """What the workers and the server share, on the first worker's device, or in parts on all GPUs of the workers.

    Args:
        devices: of the workers.
        layout: of a vector.
        warn: takes a sentence where such a device does not let processes share its memory; all goes through the CPU's
            memory then.

    Raises:
        RunFailure: there is not so much memory.
    """
    workers, size = len(devices), layout.size
    shards = shards_of(layout, owners(devices))
    named = ", ".join(str(shard.device) for shard in shards)
    try:
        if shards[0].device.type != "cpu":
            torch.cuda.set_device(shards[0].device)
            try:
                return Memory(workers, size, push, shards)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # on WSL, for example
                reason = str(error).splitlines()[0]
                warn(f"processes cannot share memory of {named} ({reason}); the gradients go through the CPU's.")
                shards = []
        return Memory(workers, size, push, shards)
    except (OSError, torch.OutOfMemoryError) as error:
        need = math.ceil(bytes_shared(workers, size, push) / 2**20)
        where = f" on {named}" if isinstance(error, torch.OutOfMemoryError) else ""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise RunFailure(
            f"{need:,} MiB of shared memory are not available{where} ({reason}); "
            f"use fewer --workers or a smaller model."
        ) from None


@contextmanager
def within_memory() -> Iterator[None]:
    """What is allocated inside fits, or a sentence says that it does not.

    Raises:
        RunFailure: it does not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunFailure("the model does not fit this machine's memory; choose a smaller --preset or width.") from None


def buffers_needed(corrections: CorrectionSettings, workers: int, simulated: bool) -> int:
    """Parameter buffers of a run; one process computes a gradient at once, and needs others only to look back."""
    return 1 if simulated and not corrections.looks_at_parameters else workers + 1


def residual_rows(push: PushSettings, workers: int, size: int, like: Tensor | None = None) -> Tensor | None:
    """Memory of this process for what pushes leave behind, (2 * workers, size); None where they cross whole.

    Args:
        like: a tensor of the place where it is to be; None: on the CPU.
    """
    if not push.compressed:
        return None
    return (torch.empty(0) if like is None else like).new_zeros(2 * workers, size)


class Setup(Protocol):
    """Makes what differs between kinds of clusters.

    Attributes:
        buffers: for the server's parameters, (buffers, size).
        residuals: for what pushes leave behind, (2 * workers, size); None where they cross whole.
        shards: which device owns which part of these.
    """

    buffers: Tensor
    residuals: Tensor | None
    shards: Sequence[Shard]

    def cluster(
        self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell, exchange: Exchange | None = None
    ) -> Cluster:
        """The workers, begun; they may be on one of several machines."""

    def validator(self, settings: ValidationSettings, tell: Tell) -> Validator:
        """What scores the parameters."""

    def close(self) -> None:
        """Gives the memory back."""


@dataclass(frozen=True)
class Tell:
    """To whom a cluster tells what its run survives.

    Attributes:
        warn: takes one sentence.
        log: takes a traceback, or stacks.
    """

    warn: Callable[[str], None]
    log: Callable[[str], None]


class ProcessSetup:
    """A process for each worker, and one for validation."""

    def __init__(self, options: TrainOptions, layout: FlatLayout, warn: Callable[[str], None]) -> None:
        self.devices = options.device_list()
        self.timeout = options.timeout_seconds
        self.memory = shared_memory(self.devices, layout, options.push_settings(), warn)
        self.buffers = self.memory.ring.tensor
        self.residuals = self.memory.residual_rows
        self.shards: Sequence[Shard] = self.memory.shards

    def cluster(
        self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell, exchange: Exchange | None = None
    ) -> Cluster:
        """The workers, begun."""
        return ProcessCluster(
            coordinator, self.memory, settings, self.devices, tell.warn, tell.log, timeout=self.timeout,
            exchange=exchange, read_ahead=ReadAhead(ParallelStore(settings.data, "train")),
        )  # fmt: skip

    def validator(self, settings: ValidationSettings, tell: Tell) -> Validator:
        """Validation while training goes on."""
        return ProcessValidator(settings, self.buffers.shape[1], tell.warn, tell.log, self.timeout)

    def close(self) -> None:
        """Gives the memory back."""
        self.memory.close()


class SimulatedSetup:
    """Everything in this process; validation costs no virtual time."""

    def __init__(self, options: TrainOptions, size: int) -> None:
        self.options = options
        workers = len(options.device_list())
        self.buffers = self.more_buffers(size)
        self.residuals = residual_rows(options.push_settings(), workers, size)
        self.shards: Sequence[Shard] = (Shard(torch.device("cpu"), 0, size),)

    def cluster(
        self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell,  # noqa: ARG002
        exchange: Exchange | None = None,  # noqa: ARG002
    ) -> Cluster:  # fmt: skip
        """The virtual workers."""
        profile = self.options.cluster_profile()
        gradients, form = self._gradients(settings)
        return SimulatedCluster(coordinator, gradients, profile, settings.seed, form=form)

    def machines(self, coordinators: Sequence[MachineCoordinator], settings: WorkerSettings) -> Cluster:
        """The virtual workers of several machines, by rank."""
        profile = self.options.cluster_profile()
        gradients, form = self._gradients(settings)
        clusters = [
            SimulatedCluster(coordinator, gradients, part, settings.seed + rank, form=form)
            for rank, (coordinator, part) in enumerate(
                zip(coordinators, profile.machines(len(coordinators)), strict=True)
            )
        ]
        return SimulatedMachines(clusters, profile.between, gradients.size)

    def _gradients(self, settings: WorkerSettings) -> tuple[WorkerGradients, Form]:
        torch.set_num_threads(settings.threads)
        worker = build_worker(settings, torch.device(self.options.device_list()[0]))
        return WorkerGradients(worker, PreparedData.open(settings.data).train), worker.form

    def more_buffers(self, size: int) -> Tensor:
        """Parameter buffers for another server."""
        workers = len(self.options.device_list())
        return torch.zeros(buffers_needed(self.options.corrections(), workers, True), size)

    def validator(self, settings: ValidationSettings, tell: Tell) -> Validator:  # noqa: ARG002
        """Validation before training goes on."""
        return InlineValidator(settings, self.buffers.shape[1])

    def close(self) -> None:
        """Nothing to give back."""


def setup_for(options: TrainOptions, layout: FlatLayout, warn: Callable[[str], None]) -> Setup:
    """What ``--cluster`` names.

    Args:
        layout: of a vector.
        warn: as in `shared_memory`.

    Raises:
        RunFailure: the memory cannot be had.
    """
    if options.cluster == "simulated":
        return SimulatedSetup(options, layout.size)
    return ProcessSetup(options, layout, warn)
