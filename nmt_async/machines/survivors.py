"""Which machines are left after one was lost, and where those meet again: all of them come to the same list.

The store where they had met is the judge. Who cannot reach it is not among those who are left, so that a network that
falls into two parts never makes two runs of one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence

from torch.distributed.distributed_c10d import Store

from nmt_async.machines.group import MachineLost
from nmt_async.machines.watch import SOON, Watch

WAIT = 600.0
"""Seconds for which a machine that still gives signs of life is waited for: it saves, and ends its workers."""

LOOK = 0.2


def those_left(store: Store, rank: int, names: Sequence[str], watch: Watch) -> list[int]:
    """The ranks of the machines that go on, ascending; this one is among them.

    Args:
        store: where they had met, and where they are asked now.
        rank: of this machine.
        names: of all, for people.

    Raises:
        MachineLost: the store is lost, or the others went on without this machine.
    """
    members: list[int] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            store.set(f"here/{rank}", "1")
            members.extend(_agreed(store, len(names), watch))

    asking = threading.Thread(target=ask, name="who is left", daemon=True)  # the store may hang while it is asked
    asking.start()
    while asking.is_alive() and watch.reachable:
        asking.join(LOOK)
    if not members:
        raise MachineLost(watch.explain(""))
    if rank not in members:
        raise MachineLost(f"{names[rank]} did not come in time, and the others went on without it.")
    return members


def _agreed(store: Store, machines: int, watch: Watch) -> list[int]:
    """The list of whoever is first to have waited enough."""
    until = time.monotonic() + WAIT
    while not store.check(["members"]):
        here = [rank for rank in range(machines) if store.check([f"here/{rank}"])]
        missing = set(range(machines)) - set(here)
        if time.monotonic() > until or missing <= set(watch.silent_for(SOON)):
            store.compare_set("members", "", json.dumps(here))
        time.sleep(LOOK)
    return [int(rank) for rank in json.loads(store.get("members"))]
