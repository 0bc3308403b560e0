"""Which machines a run is shared by: as the options say, or as torchrun or Slurm started it. Imports no torch."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nmt_async.errors import UserError

DEFAULT_PORT = 29400
"""As torchrun's."""


@dataclass(frozen=True)
class Invitation:
    """Where to meet, and how many.

    Attributes:
        host, port: of the meeting point.
        machines: how many there are.
        rank: which of them this is; None: in the order of arrival.
        hosts: whether this machine is the meeting point; None: if the host is one of its addresses.
        attempt: how often the machines were started before, where who starts them counts it.
        again: how often those who were left have met again since then.
        restarts: whether who started the machines starts those anew that are left.
    """

    host: str
    port: int
    machines: int
    rank: int | None = None
    hosts: bool | None = None
    attempt: int = 0
    again: int = 0
    restarts: bool = False

    @property
    def prefix(self) -> str:
        """Of the names in the store, those of this meeting."""
        return f"nmt-async/{self.attempt}/{self.again}"

    def of_those_left(self, machines: int, rank: int) -> Invitation:
        """To the next meeting, at the same place."""
        return replace(self, machines=machines, rank=rank, again=self.again + 1)


def invitation_of(
    nodes: int | None, rank: int | None, rendezvous: str | None, environment: Mapping[str, str]
) -> Invitation | None:
    """What the options say, or else torchrun, or else Slurm; None: this machine is alone.

    Raises:
        UserError: it is no place, or there are fewer machines than ranks.
    """
    if nodes is not None and nodes > 1 and rendezvous is not None:
        if rank is not None and rank >= nodes:
            raise UserError(f"--node-rank {rank}: {nodes} machines have the ranks 0 to {nodes - 1}.")
        return Invitation(*_place(rendezvous), nodes, rank)
    by_torchrun = "TORCHELASTIC_RUN_ID" in environment
    if by_torchrun and (rank is not None or rendezvous is not None):
        flag = "--node-rank" if rank is not None else "--rendezvous"
        raise UserError(f"{flag}: torchrun says which machine this is, and where they meet; leave it out.")
    found = _of_torchrun(environment) or _of_slurm(environment, rendezvous)
    if found is not None and nodes is not None and found.machines != nodes:
        raise UserError(
            f"--nodes {nodes}: {'torchrun' if by_torchrun else 'Slurm'} started "
            f"{found.machines}; leave the option out, or give {found.machines}."
        )
    if found is None and nodes is not None and nodes > 1:
        raise UserError(
            f"--nodes {nodes}: say with --rendezvous HOST:PORT where they meet, or start them with torchrun or srun."
        )
    return found if found is not None and found.machines > 1 else None


def _place(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator:
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--rendezvous {text}: give HOST:PORT, a host that all machines reach and a free port of it.")
    return host, int(port)


def _of_torchrun(environment: Mapping[str, str]) -> Invitation | None:
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    try:
        if int(environment["LOCAL_WORLD_SIZE"]) > 1:
            raise UserError(
                f"torchrun: {environment['LOCAL_WORLD_SIZE']} processes on this machine; give --nproc-per-node 1: "
                f"nmt-async itself starts a process for each device."
            )
        rank, machines = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
    except (KeyError, ValueError) as error:
        raise UserError(f"torchrun's environment is not whole ({error}).") from None
    return Invitation(host, port, machines, rank, not agent and rank == 0, attempt, restarts=True)


def _of_slurm(environment: Mapping[str, str], rendezvous: str | None) -> Invitation | None:
    """A job step that `srun` started, with one task on each machine."""
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    try:
        machines, rank = int(environment["SLURM_NTASKS"]), int(environment["SLURM_PROCID"])
        nodes, job = int(environment["SLURM_NNODES"]), int(environment["SLURM_JOB_ID"])
    except (KeyError, ValueError) as error:
        raise UserError(f"Slurm's environment is not whole ({error}).") from None
    if machines > nodes:
        raise UserError(
            f"Slurm: {machines} tasks on {nodes} machines; give srun --ntasks-per-node=1: nmt-async itself starts a "
            f"process for each device."
        )
    if rendezvous is not None:
        return Invitation(*_place(rendezvous), machines, rank, rank == 0)
    first = _first_host(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", ""))
    return Invitation(first, 20000 + job % 20000, machines, rank, rank == 0)


def _first_host(nodes: str) -> str:
    """Of a list as Slurm writes it: ``gpu[03-05,9],cpu1``."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=20, check=True
        ).stdout.split()
        if shown:
            return shown[0]
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if found is None:
        raise UserError("Slurm does not say on which machines it runs; say where they meet with --rendezvous.")
    return found[1] + (found[2] or "")
