"""Where a run computes: its workers in processes over shared memory, or all of them simulated in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nmt_async.cluster.cluster import Cluster
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.simulated import SimulatedCluster, WorkerGradients
from nmt_async.cluster.worker_process import WorkerSettings, build_worker
from nmt_async.text.prepared import PreparedData
from nmt_async.training.memory import buffers_needed
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import shared_memory
from nmt_async.training.validation import InlineValidator, ProcessValidator, ValidationSettings, Validator


class Setup(Protocol):
    """Makes what differs between kinds of clusters.

    Attributes:
        buffers: for the server's parameters, (buffers, size).
    """

    buffers: Tensor

    def cluster(self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell) -> Cluster:
        """The workers, begun."""

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

    def __init__(self, options: TrainOptions, size: int) -> None:
        self.devices = options.device_list()
        self.timeout = options.timeout_seconds
        self.memory = shared_memory(len(self.devices), size)
        self.buffers = self.memory.ring.tensor

    def cluster(self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell) -> Cluster:
        """The workers, begun."""
        return ProcessCluster(
            coordinator, self.memory, settings, self.devices, tell.warn, tell.log, timeout=self.timeout
        )

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
        self.buffers = torch.zeros(buffers_needed(options.rule(), len(options.device_list()), True), size)

    def cluster(self, coordinator: Coordinator, settings: WorkerSettings, tell: Tell) -> Cluster:  # noqa: ARG002
        """The virtual workers."""
        torch.set_num_threads(settings.threads)
        worker = build_worker(settings, torch.device(self.options.device_list()[0]))
        gradients = WorkerGradients(worker, PreparedData.open(settings.data).train)
        return SimulatedCluster(coordinator, gradients, self.options.cluster_profile(), settings.seed)

    def validator(self, settings: ValidationSettings, tell: Tell) -> Validator:  # noqa: ARG002
        """Validation before training goes on."""
        return InlineValidator(settings, self.buffers.shape[1])

    def close(self) -> None:
        """Nothing to give back."""


def setup_for(options: TrainOptions, size: int) -> Setup:
    """What ``--cluster`` names, for parameter vectors of ``size``.

    Raises:
        RunFailure: the memory cannot be had.
    """
    return SimulatedSetup(options, size) if options.cluster == "simulated" else ProcessSetup(options, size)
