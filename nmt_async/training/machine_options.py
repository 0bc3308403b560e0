"""The options of ``train`` that say with which other machines it trains, and what they exchange."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from nmt_async.errors import UserError
from nmt_async.machines.invitation import Invitation, invitation_of
from nmt_async.options import GIVEN, flag_of, option
from nmt_async.quantity import Quantity, parse_quantity
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import WAYS, Way

MOST_MACHINES = 4096
MOST_UPDATES = 1_000_000
MOST_RATE = 10.0


def timeout_quantity(text: str) -> Quantity:
    """Minutes or hours.

    Raises:
        UserError: something else.
    """
    return parse_quantity(text, allowed=("hours", "minutes"))


OUTER = {
    "local_updates": "updates", "outer_rate": "rate", "outer_momentum": "momentum", "outer_fragments": "fragments",
    "outer_dtype": "dtype",
}  # fmt: skip
"""Options of the outer step, and what `OuterSettings` call them."""


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
    local_updates: int | None = option(
        None,
        "With --between local: K, the updates that a machine makes of its own between two exchanges (default: 16).",
        group="Machines",
        changeable=True,
        only_with={"between": "local"},
    )
    outer_rate: float | None = option(
        None,
        "With --between local: the rate of the outer step (default: 0.7).",
        group="Machines",
        changeable=True,
        only_with={"between": "local"},
    )
    outer_momentum: float | None = option(
        None,
        "With --between local: its Nesterov momentum; 0 with a rate of 1 is the mean of the parameters (default: 0.9).",
        group="Machines",
        changeable=True,
        only_with={"between": "local"},
    )
    outer_fragments: int | None = option(
        None,
        "With --between local: P, parts of the parameters that are exchanged one after another, each K / P updates "
        "after the one before, while nobody waits (default: 1).",
        group="Machines",
        changeable=True,
        only_with={"between": "local"},
    )
    outer_dtype: str | None = option(
        None,
        "With --between local: in which numbers differences cross (default: float32).",
        group="Machines",
        choices=("float32", "bfloat16"),
        changeable=True,
        only_with={"between": "local"},
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
        if self.local_updates is not None and not 1 <= self.local_updates <= MOST_UPDATES:
            raise UserError(f"--local-updates: {self.local_updates} is not from 1 to {MOST_UPDATES:,}.")
        if self.outer_rate is not None and not 0 < self.outer_rate <= MOST_RATE:
            raise UserError(f"--outer-rate: {self.outer_rate:g} is not above 0 and at most {MOST_RATE:g}.")
        if self.outer_momentum is not None and not 0 <= self.outer_momentum < 1:
            raise UserError(f"--outer-momentum: {self.outer_momentum:g} is not from 0 to below 1.")
        self.outer()
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

    def outer(self) -> OuterSettings | None:
        """The outer step, where machines make updates of their own.

        Raises:
            UserError: its fragments do not fit its updates.
        """
        if not self.way().local:
            return None
        given = {name: getattr(self, option_name) for option_name, name in OUTER.items()}
        try:
            return OuterSettings(**{name: value for name, value in given.items() if value is not None})
        except ValueError as error:
            raise UserError(f"--outer-fragments: {error}.") from None

    @property
    def machine_timeout_seconds(self) -> float:
        """Of `machine_timeout`."""
        return (self.machine_timeout or Quantity(1, "minutes")).seconds

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
            others = ("node_rank", "rendezvous")
            if field.name != "nodes" and value is not None and not (shared and field.name not in others):
                raise UserError(
                    f"{flag_of(field)} {value}: there is one machine only; say with --nodes how many there are."
                )
