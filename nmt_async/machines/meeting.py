"""How machines meet: in a store that one of them opens, at the address that all were told."""

from __future__ import annotations

import contextlib
import datetime
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from nmt_async.errors import RunFailure, UserError
from nmt_async.machines.invitation import Invitation

COMING = datetime.timedelta(minutes=10)
"""How long machines wait for each other at the beginning."""

COMING_AGAIN = datetime.timedelta(minutes=1)
"""How long those wait for each other that meet again, who were all there a moment ago."""

PARTING = 5.0
"""Seconds for which the machine that has the store stays for the others at the end."""

ANSWER = datetime.timedelta(minutes=1)
"""How long one waits for what the store answers at once."""


@dataclass(frozen=True)
class Meeting:
    """The store where machines have met.

    Attributes:
        rank, machines: which of how many this is.
        address: of this machine, as the others reach it.
        store: a connection to the store, of the thread that begins and ends the run.
        connect: another connection to it.
        place: HOST:PORT, for people.
        hosts: whether the store is in this process.
    """

    rank: int
    machines: int
    address: str
    store: Store
    connect: Callable[[], Store]
    place: str
    hosts: bool

    def part(self, all_well: bool) -> None:
        """This machine asks the store nothing more; if all is well, the one that has it stays for the others."""
        until = time.monotonic() + (PARTING if all_well else 1.0)
        with contextlib.suppress(RuntimeError):
            self.store.set_timeout(datetime.timedelta(seconds=PARTING))
            self.store.set(f"parted/{self.rank}", "1")
            keys = [f"parted/{rank}" for rank in range(self.machines)]
            while self.hosts and not self.store.check(keys) and time.monotonic() < until:
                time.sleep(0.05)


def patience(invitation: Invitation) -> datetime.timedelta:
    """How long machines wait for each other."""
    return COMING_AGAIN if invitation.again else COMING


def meet(invitation: Invitation, tell: Callable[[str], None]) -> Meeting:
    """Until the meeting point is there.

    Raises:
        RunFailure: it is not, after ten minutes; or it cannot be opened here.
    """
    place = f"{invitation.host}:{invitation.port}"
    server = _opened.get(place) if invitation.again else _open(invitation, place, tell)
    store: Any = server or _reach(invitation, place)
    _kept.append(store)
    prefix = invitation.prefix
    shared = PrefixStore(prefix, store)
    rank = invitation.rank
    if rank is None:
        rank = shared.add("arrived", 1) - 1
        if rank >= invitation.machines:
            raise UserError(
                f"--nodes {invitation.machines}: so many machines are at {place} already; give each run a port of its "
                f"own."
            )
    elif shared.add(f"arrived/{rank}", 1) > 1:
        raise UserError(f"--node-rank {rank}: a machine of this rank is at {place} already.")

    if server is not None:
        shared.set("meeting point", str(rank))

    def connect() -> Store:
        return PrefixStore(prefix, store.clone())

    return Meeting(rank, invitation.machines, _own_address(invitation), shared, connect, place, server is not None)


_opened: dict[str, Store] = {}
"""By place. The others still ask it while this machine ends, and meet there again: it ends with the process."""

_kept: list[Store] = []
"""Connections, which end with the process, too."""


def _open(invitation: Invitation, place: str, tell: Callable[[str], None]) -> Store | None:
    """The store, if the meeting point is this machine."""
    listener = _listen(invitation) if invitation.hosts is not False else None
    if listener is None:
        return None
    tell(f"this machine is the meeting point, {place}.")
    _opened[place] = _store(invitation, listener.detach())
    return _opened[place]


def _store(invitation: Invitation, listening: int | None) -> Any:
    return TCPStore(
        invitation.host, invitation.port, None, listening is not None, ANSWER, False, master_listen_fd=listening
    )


def _reach(invitation: Invitation, place: str) -> Any:
    """A connection to the meeting point, which may not be open yet."""
    until = time.monotonic() + patience(invitation).total_seconds()
    while True:
        try:
            with socket.create_connection((invitation.host, invitation.port), timeout=5):
                pass
            return _store(invitation, None)
        except (OSError, RuntimeError) as error:
            if time.monotonic() > until:
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                raise RunFailure(
                    f"--rendezvous {place}: the meeting point cannot be reached ({reason}); is the machine there "
                    f"started, and its port open to this one?"
                ) from None
            time.sleep(0.2)


def _listen(invitation: Invitation) -> socket.socket | None:
    """A socket at the meeting point, on its address alone; None if that is not here, or another process has it.

    Raises:
        RunFailure: it should be here, and cannot be had.
    """
    try:
        found = socket.getaddrinfo(invitation.host, invitation.port, type=socket.SOCK_STREAM)
    except OSError:  # its name may be known later, as where machines start one after another
        return None
    for family, kind, protocol, _, address in found:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
            return listener
        except OSError as error:
            listener.close()
            if invitation.hosts:
                raise RunFailure(
                    f"the meeting point {invitation.host}:{invitation.port} cannot be opened here "
                    f"({error.strerror or error}); is another run using it?"
                ) from None
    return None


def _own_address(invitation: Invitation) -> str:
    """This machine's, on the way to the meeting point: nothing is sent to find it."""
    family, kind, _, _, address = socket.getaddrinfo(invitation.host, invitation.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as way:
        way.connect(address)
        return str(way.getsockname()[0])
