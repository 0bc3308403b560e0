"""What training asks of a cluster, be it of processes or simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from nmt_async.errors import RunFailure
from nmt_async.sync.push import Update
from nmt_async.sync.rules import Rule


class Cluster(Protocol):
    """Workers that compute what the coordinator gives out."""

    @property
    def seconds(self) -> float:
        """Of work in this sitting, by the cluster's clock: real or virtual ones."""

    def updates(self) -> Iterator[Update | None]:
        """Every update as it is applied, and None now and then without one; ends with a finite stream."""

    def pause(self) -> None:
        """Ends this sitting of a run that will go on as if nothing had been: what is under way stays as it is."""

    def stop(self) -> Update | None:
        """Ends the run: what is accumulated becomes a last, smaller update."""

    def waiting_shares(self) -> list[float]:
        """Of each worker, the share of its time since the last call that it waited for a task."""

    def reading_seconds(self) -> float:
        """Seconds since the last call in which workers read the sentences of their batches, of all together."""

    def update_seconds(self) -> float:
        """Mean seconds that the server needed for an update since the last call; 0 if there was none."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the workers hold, where that can be stored: plain values, and tensors by name, not copied."""

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Takes up where `state` was taken, after the coordinator has."""

    def close(self) -> None:
        """Ends all processes, if there are any."""


def everybody_waits(rule: Rule) -> RunFailure:
    """What a cluster raises when nobody computes and its rule lets nobody begin."""
    return RunFailure(f"every worker waits for another: the rule {rule.name} never lets any of them begin.")


class Timed(Protocol):
    """A worker whose seconds are counted.

    Attributes:
        computing, waiting: seconds spent on batches, and waiting for one, since last taken.
    """

    computing: float
    waiting: float


class SpentTime:
    """What workers did with their time, for two who ask at moments of their own: reports, and other machines."""

    def __init__(self) -> None:
        self._counted = (0.0, 0.0)  # seconds of all workers, before their counting last began anew
        self._told = (0.0, 0.0)  # to other machines, of all that was counted

    def take_waiting_shares(self, workers: Sequence[Timed]) -> list[float]:
        """Of each worker's time since the last call, the share that it waited; the workers' counting begins anew."""
        self._counted = self._so_far(workers)
        shares = []
        for worker in workers:
            total = worker.computing + worker.waiting
            shares.append(worker.waiting / total if total else 0.0)
            worker.computing = worker.waiting = 0.0
        return shares

    def take_seconds(self, workers: Sequence[Timed]) -> tuple[float, float]:
        """Seconds that all workers together have computed and waited since the last call."""
        before, self._told = self._told, self._so_far(workers)
        return self._told[0] - before[0], self._told[1] - before[1]

    def _so_far(self, workers: Sequence[Timed]) -> tuple[float, float]:
        computing, waiting = self._counted
        return (
            computing + sum(worker.computing for worker in workers),
            waiting + sum(worker.waiting for worker in workers),
        )
