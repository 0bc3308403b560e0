"""The machines of one run, from their meeting to their end."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.distributed.distributed_c10d import DistStoreError, PrefixStore

from nmt_async.errors import RunFailure, UserError
from nmt_async.machines.exchange import Exchange
from nmt_async.machines.group import GlooGroup, MachineLost, gather_values, spread_state
from nmt_async.machines.invitation import Invitation
from nmt_async.machines.meeting import Meeting, meet, patience
from nmt_async.machines.survivors import those_left
from nmt_async.machines.watch import Watch, printable
from nmt_async.sync.between.ways import Way

PATIENCE = datetime.timedelta(seconds=3)
"""For which a machine waits for the others without saying so."""


class Team:
    """Machines that train together.

    Args:
        invitation: where they meet.
        timeout: seconds without a sign of life after which one of them is given up.
        tell: takes a sentence about who is waited for.

    Attributes:
        rank: which of them this is; 0 leads, which means that it validates and saves.
        names: of all, for people, by rank.

    Raises:
        RunFailure: they did not come together.
        UserError: two of them cannot be told apart.
    """

    def __init__(self, invitation: Invitation, timeout: float, tell: Callable[[str], None]) -> None:
        self._invitation = invitation
        self._meeting = meet(invitation, tell)
        self.rank, self.size = self._meeting.rank, self._meeting.machines
        self.names = _names(self._meeting, tell, patience(invitation).total_seconds())
        self._host = self._named_host()
        self._watch = Watch(self._meeting.connect, self.rank, self.names, timeout, self._host)
        self._exchange: Exchange | None = None
        self._parts = True  # rather than meeting again
        try:
            self.group = GlooGroup(
                PrefixStore("gloo", self._meeting.connect()), self.rank, self.size,
                self._meeting.address, self._watch,
            )  # fmt: skip
        except BaseException:
            self._watch.close()
            raise

    def _named_host(self) -> str:
        """Of the store, for people."""
        store, place = self._meeting.store, self._meeting.place
        if not store.check(["meeting point"]):  # it is torchrun's
            return f"the meeting point, {place}"
        return f"{self.names[int(store.get('meeting point'))]}, which is the meeting point, {place}"

    @property
    def leads(self) -> bool:
        """Whether this is the machine that validates and saves."""
        return self.rank == 0

    def agree(self, values: Mapping[str, str], what: Mapping[str, str]) -> None:
        """Makes sure that all machines were started alike.

        Args:
            values: what must be the same everywhere, by a name.
            what: how a sentence calls it, by that name.

        Raises:
            UserError: something is not; every machine says the same.
        """
        told = gather_values(self.group, dict(values))
        for rank, there in enumerate(told):
            for name, first in told[0].items():
                if there.get(name) != first:
                    raise UserError(
                        f"{self.names[rank]} has {what.get(name, name)} {there.get(name, 'unknown')} and "
                        f"{self.names[0]} {first}; start all machines alike."
                    )

    def gather(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Plain values of every machine, by rank."""
        return gather_values(self.group, values)

    def spread(
        self, source: int, values: dict[str, Any] | None, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the machine ``source`` has, to all; the others give nothing."""
        return spread_state(self.group, source, values, tensors)

    def exchange(self, way: Way) -> Exchange:
        """Begins the thread of the exchanges; from here on the group is its."""
        self._exchange = Exchange(self.group, self._meeting.connect if way.joins else None, self._watch)
        return self._exchange

    def leave(self, reason: str) -> None:
        """Tells the others why this machine cannot go on."""
        self._watch.leave(reason)

    def those_left(self) -> Invitation | None:
        """After a machine was lost: to where those meet again that are left; None: nobody else is.

        Raises:
            MachineLost: that cannot be known, or they went on without this machine.
        """
        if not self._watch.answers():
            raise MachineLost(
                f"{self._host} is lost, so the others do not know who is left; start those that are left again."
            )
        store = PrefixStore("again", self._meeting.connect())
        left = those_left(store, self.rank, self.names, self._watch)
        self._parts = False
        return self._invitation.of_those_left(len(left), left.index(self.rank)) if len(left) > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.leave(str(error) or type(error).__name__)
        if self._exchange is not None:
            self._exchange.close()
        self.group.close()
        if self._watch.reachable:
            self._meeting.part(error is None and self._parts)


def _names(meeting: Meeting, tell: Callable[[str], None], longest: float) -> list[str]:
    """Of all machines, once all have come; they are waited for so many seconds."""
    store, begin, told = meeting.store, time.monotonic(), False
    store.set(f"name/{meeting.rank}", socket.gethostname()[:200])
    keys = [f"name/{rank}" for rank in range(meeting.machines)]
    while True:
        try:
            store.wait(keys, PATIENCE)
            break
        except DistStoreError:
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
            waited = time.monotonic() - begin
            which = ", ".join(map(str, missing))
            if waited > longest:
                raise RunFailure(
                    f"machines {which} of {meeting.machines} did not come to {meeting.place} within "
                    f"{longest / 60:.0f} minutes."
                ) from None
            if not told and missing:
                told = True
                tell(f"waiting at {meeting.place} for {meeting.machines} machines; still to come: {which}.")
    return [f"machine {rank} ({printable(store.get(key))})" for rank, key in enumerate(keys)]
