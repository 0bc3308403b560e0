"""The options of ``train`` that say with which other machines it trains, and what they exchange."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from nmt_async.errors import UserError
from nmt_async.machines.invitation import Invitation, invitation_of
from nmt_async.options import GIVEN, flag_of, option
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.between.ways import WAYS, Way

MOST_MACHINES = 4096


def timeout_quantity(text: str) -> Quantity:
    """Minutes or hours.

    Raises:
        UserError: something else.
    """
    return parse_quantity(text, allowed=("hours", "minutes"))


@dataclass(frozen=True)
class MachineOptions:
    """With which other machines a run is shared. Each is started with the same options; `node_rank` may differ."""

    nodes: int | None = option(
        None,
        "Machines that train together, each started with this command (default: as torchrun or srun started them, "
        "else 1).",
        group="Machines",
        changeable=True,
    )
    node_rank: int | None = option(
        None,
        "Which of the machines this is, from 0 (default: in the order of arrival).",
        group="Machines",
        changeable=True,
        only_with={"nodes": GIVEN},
    )
    rendezvous: str | None = option(
        None,
        "Where they meet: an address of one of them, and a free port of it.",
        group="Machines",
        metavar="HOST:PORT",
        changeable=True,
    )
    between: str | None = option(
        None,
        f"{'; '.join(f'{way.name}: {way.summary}' for way in WAYS.values())} (default: sync).",
        group="Machines",
        choices=tuple(WAYS),
        changeable=True,
    )
    machine_timeout: Quantity | None = option(
        None,
        "Give up a machine that has given no sign of life for so many minutes or hours (default: 1min).",
        group="Machines",
        parse=timeout_quantity,
        metavar="TIME",
        changeable=True,
    )

    def check_machines(self) -> None:
        """Raises UserError where the numbers cannot be."""
        if self.nodes is not None and not 1 <= self.nodes <= MOST_MACHINES:
            raise UserError(f"--nodes: {self.nodes} is not from 1 to {MOST_MACHINES:,}.")
        if self.node_rank is not None and self.node_rank < 0:
            raise UserError(f"--node-rank: {self.node_rank} is too small; give 0 or more.")
        if self.machine_timeout is not None and self.machine_timeout.amount <= 0:
            raise UserError(f"--machine-timeout: {self.machine_timeout} must be above 0.")

    def invitation(self) -> Invitation | None:
        """With whom this machine trains; None: alone.

        Raises:
            UserError: options that cannot be, or torchrun or Slurm started something else.
        """
        return invitation_of(self.nodes, self.node_rank, self.rendezvous, os.environ)

    def way(self) -> Way:
        """What machines exchange."""
        return WAYS[self.between or "sync"]

    @property
    def machine_timeout_seconds(self) -> float:
        """Of `machine_timeout`."""
        timeout = self.machine_timeout or Quantity(1, "minutes")
        return timeout.amount * (3600 if timeout.unit == "hours" else 60)

    def check_simulated(self) -> None:
        """Raises UserError where an option means nothing, since all machines are simulated in this process."""
        for name in ("node_rank", "rendezvous", "machine_timeout"):
            value = getattr(self, name)
            if value is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {value}: all machines of a simulated cluster are here; leave it out.")

    def check_alone(self, shared: bool) -> None:
        """Raises UserError where an option means nothing, since there is one machine only.

        Args:
            shared: it goes on with a run that several had begun.
        """
        for field in dataclasses.fields(MachineOptions):
            value = getattr(self, field.name)
            if field.name != "nodes" and value is not None and not (shared and field.name == "between"):
                raise UserError(
                    f"{flag_of(field)} {value}: there is one machine only; say with --nodes how many there are."
                )
