"""The devices of this machine: how people name them, and which are taken where nobody names any.

Torch is imported when a device is looked for, not before.
"""

from __future__ import annotations

import re

from nmt_async.errors import UserError, shown

ALL_GPUS = "all GPUs there are, else the CPU"
FIRST_GPU = "the first GPU there is, else the CPU"


class MissingDevice(UserError):
    """A device that another machine may have, or this one when its driver works."""


def gpu_count() -> int:
    """GPUs that torch finds here. It asks their driver's library and does not begin to use them."""
    import torch

    return torch.cuda.device_count()


def all_gpus() -> list[str]:
    """``["cuda:0", "cuda:1"]``; without a GPU ``["cpu"]``."""
    return [f"cuda:{number}" for number in range(gpu_count())] or ["cpu"]


def reason_for(devices: list[str]) -> str:
    """Why those of `all_gpus`, or the first of them, were taken."""
    if devices == ["cpu"]:
        return "no GPU found"
    return "all GPUs found" if len(devices) == gpu_count() else "the first GPU found"


def devices_named(text: str, flag: str) -> list[str]:
    """The devices in a list as people type it, as torch names them: ``0,1``, ``cuda:0 cuda:1``, ``cuda``, ``cpu``.

    Raises:
        UserError: there is none, or one that could never be; ``flag`` is the option that messages name. Whether this
            machine has them is not asked.
    """
    names = [name for name in re.split(r"[\s,]+", text.strip()) if name]
    if not names:
        raise UserError(f"{flag} names no device; give cpu, or numbers of CUDA devices such as 0,1.")
    return [_named(name, flag) for name in names]


def device_named(text: str, flag: str) -> str:
    """The device in ``text``, as `devices_named` has it.

    Raises:
        UserError: there is none, or more than one.
    """
    devices = devices_named(text, flag)
    if len(devices) > 1:
        raise UserError(f"{flag} {text} names several devices; give one.")
    return devices[0]


def _named(name: str, flag: str) -> str:
    if name in ("cpu", "cuda"):
        return name.replace("cuda", "cuda:0")
    number = re.fullmatch(r"(?:cuda:)?([0-9]{1,9})", name, re.ASCII)
    if number is None:
        raise UserError(f"{flag}: {shown(name)} is not a device; give cpu, or numbers of CUDA devices such as 0,1.")
    return f"cuda:{int(number[1])}"


def check_here(devices: list[str], flag: str) -> None:
    """Raises MissingDevice for one that this machine does not have; they are named as `devices_named` does."""
    for name in devices:
        if name == "cpu" or int(name.removeprefix("cuda:")) < gpu_count():
            continue
        found = f"only {gpu_count()}, counted from 0" if gpu_count() else "no CUDA device"
        raise MissingDevice(f"{flag} {name}: torch finds {found} here; give {flag} cpu, or leave it out.")
