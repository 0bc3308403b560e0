"""The machine: torch's build, CUDA devices, cores, and /dev/shm."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from nmt_async.devices import MissingDevice
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.free_memory import GROUPS
from nmt_async.training.cluster_options import available_cores
from nmt_async.training.options import TrainOptions

DRIVER = Path("/proc/driver/nvidia/version")
SHARED = Path("/dev/shm")


def machine_findings(options: TrainOptions) -> Iterator[Finding]:
    """All about the machine that needs no data.

    Raises:
        UserError: the options make no sense on any machine.
    """
    yield torch_build()
    yield from devices(options)
    yield cores(options)


def torch_build(driver: Path = DRIVER) -> Finding:
    """Which torch this is, and whether it could use the GPUs here."""
    build = torch.version.cuda or torch.version.hip
    found = f"torch {torch.__version__}, built {f'for CUDA {build}' if build else 'without CUDA'}"
    if not driver.exists() or torch.cuda.is_available():
        return Finding("torch", "fine", found)
    if not build:
        advice = "install torch with CUDA (https://pytorch.org) to use them"
    else:
        advice = f"it may be older than CUDA {build} needs: renew it, or install torch for an older CUDA"
    return Finding("torch", "note", f"{found}; an NVIDIA driver is here, and torch finds no GPU", advice)


def devices(options: TrainOptions) -> Iterator[Finding]:
    """Whether the planned devices are here, what else is, and whether GPUs reach each other."""
    try:
        planned = list(dict.fromkeys(options.device_list()))
    except MissingDevice as error:
        yield Finding("devices", "wrong", str(error).rstrip("."), "see that the driver works, or give other --devices")
        return
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if planned == ["cpu"] and gpus:
        numbers = ",".join(map(str, range(len(gpus))))
        yield Finding("devices", "note", f"{', '.join(gpus)} would not be used", f"give --devices {numbers}")
        return
    yield Finding("devices", "fine", ", ".join(planned))
    for gpu in (name for name in planned if name != "cpu"):
        yield _gpu(gpu)
    apart = [
        f"{one} and {other}"
        for one, other in itertools.combinations([name for name in planned if name != "cpu"], 2)
        if not torch.cuda.can_device_access_peer(torch.device(one), torch.device(other))
    ]
    if apart:
        yield Finding(
            "peer access", "note", f"none between {'; '.join(apart)}: their data goes through the host's memory"
        )


def _gpu(name: str) -> Finding:
    free, total = torch.cuda.mem_get_info(torch.device(name))
    found = f"{torch.cuda.get_device_name(name)}, {mebibytes(free)} of {mebibytes(total)} free"
    if free < 0.9 * total:
        return Finding(name, "note", found, "other programs use the rest: see nvidia-smi")
    return Finding(name, "fine", found)


def cores(options: TrainOptions, groups: Path = GROUPS) -> Finding:
    """Whether there is a core for each thread of the workers."""
    there, allowed = available_cores(), quota(groups)
    found = f"{there} may be used"
    if allowed is not None and allowed < there:
        found += f", but no more time than {allowed:g} of them have (the limit of a container)"
        there = max(1, int(allowed))
    try:
        planned = options.device_list()
    except MissingDevice:  # told already
        return Finding("cores", "fine", found)
    if set(planned) != {"cpu"}:
        return Finding("cores", "fine", found)
    workers = 1 if options.cluster == "simulated" else len(planned)
    wanted = workers * options.threads()
    found += f"; {_counted(workers, 'worker')} of {_counted(options.threads(), 'thread')}"
    if wanted > there:
        least = max(1, there // options.threads())
        return Finding("cores", "note", found, f"they would wait for each other: give --workers {least}")
    return Finding("cores", "fine", found)


def quota(groups: Path = GROUPS) -> float | None:
    """Cores' worth of time that the control group of this container may use, None for no limit."""
    try:
        amount, period = (groups / "cpu.max").read_text().split()
        return None if amount == "max" else int(amount) / int(period)
    except (OSError, ValueError):
        return None


def shared_space(folder: Path = SHARED) -> str:
    """How much of /dev/shm is free."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return f"there is no {folder}"
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return f"{mebibytes(free)} of {mebibytes(total)} are free in {folder}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
