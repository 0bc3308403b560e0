"""The options of ``train`` that say how gradients become updates, and on which devices workers compute them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from nmt_async.cluster.profile import MOST_WORKERS, PRESETS, ClusterProfile, profile_for
from nmt_async.devices import ALL_GPUS, all_gpus, check_here, devices_named, reason_for
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import BFLOAT16, FLOAT32, FUSED, TORCH
from nmt_async.options import Automatic, option
from nmt_async.process import fork_server
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.rules import MODES, RULES, Rule, rule_for
from nmt_async.training.push_options import PushOptions
from nmt_async.training.waiting_options import WaitingOptions

CLUSTERS = ("processes", "simulated")
MAX_DEFAULT_WORKERS = 4
MOST_THREADS = 4096

CHILDREN = ("nmt_async.cluster.worker", "nmt_async.training.validation")
"""What the processes of a run import."""


def time_quantity(text: str) -> Quantity:
    """Minutes or hours; 0 needs no unit.

    Raises:
        UserError: something else.
    """
    return parse_quantity("0min" if text.strip() == "0" else text, allowed=("hours", "minutes"))


MEASURED = Automatic(0)
"""Of workers: as many as compute most in a short measurement (`nmt_async.training.worker_count`)."""


def worker_count(text: str) -> int:
    """A number of workers, or `MEASURED`.

    Raises:
        UserError: neither.
    """
    if text == str(MEASURED):
        return MEASURED
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{shown(text)} is neither a whole number nor auto.") from None


@dataclass(frozen=True)
class SyncOptions(WaitingOptions, PushOptions):
    """How gradients become updates, and where they are computed."""

    sync_mode: str = option(
        "hybrid",
        f"{'; '.join(f'{mode}: {rule.summary}' for mode, rule in RULES.items())}.",
        group="Updates",
        choices=MODES,
    )
    accumulate: int | None = option(
        None,
        "N: how many pushes an update sums; in sync, of each worker (default: the number of workers in hybrid and "
        "adaptive, else 1).",
        group="Updates",
        flags=("--accumulate", "--optimizer-delay"),
    )
    local_accumulate: int = option(
        1,
        "Batches that a worker sums before each push, as Marian's optimizer delay does in asynchronous training.",
        group="Updates",
    )
    workers: int | None = option(
        None,
        "Worker processes (default: one a CUDA device; on CPU one a core, 4 at most); auto: as many, with as many "
        "threads each, as compute most in a measurement that takes some seconds for each choice.",
        group="Devices", parse=worker_count, metavar="N|auto",
    )  # fmt: skip
    devices: str | None = option(
        None,
        "cpu, or CUDA devices as in '0,1' or 'cuda:0,cuda:1'; workers are spread over them in turn "
        f"(default: {ALL_GPUS}).",
        group="Devices",
        changeable=True,
    )
    cpu_threads: int | None = option(
        None, "CPU threads of each worker (default: its share of the cores).", group="Devices", changeable=True
    )

    kernels: str = option(
        "auto",
        "What gradients are computed with: torch's own kernels, or fused ones, up to twice as fast, for CPUs only; "
        "auto: fused on CPUs.",
        group="Devices", choices=("auto", FUSED, TORCH), changeable=True,
    )  # fmt: skip
    precision: str = option(
        FLOAT32,
        "Precision in which workers multiply matrices; bfloat16 needs a GPU of compute capability 8, or a processor "
        "with AVX512-BF16 or AMX. Parameters, sums and the loss stay float32.",
        group="Devices", choices=(FLOAT32, BFLOAT16), changeable=True,
    )  # fmt: skip

    def computed_with(self) -> str | None:
        """The kernels that were asked for; None: the faster ones for each device.

        Raises:
            UserError: a device has not got them.
        """
        if self.kernels == FUSED and (others := set(self.device_list()) - {"cpu"}):
            raise UserError(f"--kernels {FUSED}: {min(others)} has none; leave it out.")
        return None if self.kernels == "auto" else self.kernels

    def device_list(self) -> list[str]:
        """The device of each worker, as torch names it.

        Raises:
            UserError: a device that this machine does not have.
        """
        devices = self._default_devices() if self.devices is None else devices_named(self.devices, "--devices")
        check_here(devices, "--devices")
        if self.workers is not None and self.workers < 1 and self.workers is not MEASURED:
            raise UserError(f"--workers: {self.workers} is too few; give 1 or more.")
        if self.workers is not None and self.workers > MOST_WORKERS:
            raise UserError(f"--workers: {self.workers} is too many; give {MOST_WORKERS:,} or fewer.")
        return [devices[index % len(devices)] for index in range(self.workers or self._default_workers(devices))]

    def _default_devices(self) -> list[str]:
        return all_gpus()

    def devices_reason(self) -> str:
        """Why these devices, in a few words, where nobody named them; empty where somebody did."""
        return reason_for(self._default_devices()) if self.devices is None else ""

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
            return rule_for(self.sync_mode, workers, self.accumulate, self.waiting())
        except ValueError as error:
            names = ["sync_mode", *(["accumulate"] if self.accumulate is not None else []), *self.waiting().given()]
            typed = " ".join(f"--{name.replace('_', '-')} {getattr(self, name)}" for name in names)
            raise UserError(f"{typed.replace(' True', '')}: {error}.") from None

    def threads(self) -> int:
        """CPU threads of each worker, wherever its device is."""
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
        only_with={"cluster": "processes"},
    )
    cluster: str = option(
        "processes",
        "processes: real workers; simulated: virtual ones in one process, with real gradients and a virtual clock.",
        group="Devices",
        choices=CLUSTERS,
    )
    profile: str | None = option(
        None,
        f"Profile of the simulated cluster: {', '.join(PRESETS)} (default: paper), or a file that bench wrote.",
        group="Devices",
        metavar="PROFILE",
        only_with={"cluster": "simulated"},
    )

    @property
    def timeout_seconds(self) -> float:
        """Of `worker_timeout`."""
        return self.worker_timeout.seconds

    def cluster_profile(self) -> ClusterProfile:
        """The simulated cluster's.

        Raises:
            UserError: there is no such profile, or it has fewer workers than asked for.
        """
        if self.workers is MEASURED:
            raise UserError(
                f"--workers {MEASURED}: workers of a simulated cluster are virtual; give a number, or leave it out."
            )
        return profile_for(self.profile or "paper", None if self.workers is None else self.workers * self.machines)

    @property
    def machines(self) -> int:
        """With how many machines a run is shared, each with so many workers."""
        return 1

    def _default_devices(self) -> list[str]:
        devices = super()._default_devices()
        return devices[:1] if self.cluster == "simulated" else devices

    def device_list(self) -> list[str]:
        devices = super().device_list()
        if self.cluster == "simulated" and len(set(devices)) > 1:
            raise UserError(
                f"--devices {self.devices}: a simulated cluster computes on one device; give --devices {devices[0]}."
            )
        return devices

    def _default_workers(self, devices: list[str]) -> int:
        if self.cluster == "simulated":
            try:
                return len(self.cluster_profile().machines(self.machines)[0].workers)
            except ValueError as error:
                raise UserError(f"--profile {self.profile or 'paper'}: {error}; say with --workers how many.") from None
        return super()._default_workers(devices)

    def _computing_processes(self) -> int:
        return 1 if self.cluster == "simulated" else super()._computing_processes()


def prepare_children(options: ClusterOptions) -> None:
    """Begins to start what the run's processes are forked from: it imports beside this process, which can go on."""
    if options.cluster == "processes":
        with contextlib.suppress(OSError):  # the first child that cannot be started says so
            fork_server.prepare(*CHILDREN)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
