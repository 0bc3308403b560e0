"""Simulated machines: a simulated cluster each, with a server of its own, on one virtual clock.

What happens next on any of them happens next. An exchange takes as long as the profile's link needs for it, and lands
on all machines at once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from nmt_async.cluster.cluster import everybody_waits
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.profile import LinkProfile
from nmt_async.cluster.simulated import BYTES, SimulatedCluster
from nmt_async.sync.between.contribution import Contribution, Joint
from nmt_async.sync.between.outer import summed
from nmt_async.sync.push import Update


class SimulatedMachines:
    """Machines that share a run.

    Args:
        clusters: one of each machine, by rank, whose coordinators are `MachineCoordinator`s of the same run.
        link: between them.
        sent: numbers in a vector that they exchange.

    Attributes:
        exchanges: how many there were.
    """

    def __init__(self, clusters: Sequence[SimulatedCluster], link: LinkProfile, sent: int) -> None:
        self.clusters = list(clusters)
        self.machines = [machine_of(cluster) for cluster in clusters]
        for machine in self.machines:  # they would all do the same with it
            machine.dealing = self.machines[0].dealing
        self.link = link
        self.sent = sent
        self.exchanges = 0
        self._brought: dict[int, tuple[Contribution, Tensor]] = {}
        self._contributed = 0.0  # when the latest of these came
        self._called = math.inf  # when all others hear that one of them is ready
        self._lands = math.inf

    @property
    def time(self) -> float:
        """Virtual seconds, of the first machine."""
        return self.clusters[0].time

    @property
    def seconds(self) -> float:
        """Virtual seconds since this sitting began."""
        return self.clusters[0].seconds

    def updates(self) -> Iterator[Update | None]:
        """Every update as the first machine applies it, in virtual time; ends with a finite stream.

        Raises:
            RunFailure: every worker waits for another, or too many batches were set aside.
        """
        for cluster in self.clusters:
            cluster.go_on(cluster.time)
        coming = self._all_coming()
        while not self.machines[0].finished:
            time, rank = coming[0] if coming else (math.inf, 0)
            if self._lands <= time and self._lands < math.inf:
                update = self._land()
                if update is not None:
                    yield update
                coming = self._all_coming()
            elif self._called <= time and self._called < math.inf:
                self._answer_call()
                coming = self._all_coming()
            elif coming:
                heapq.heappop(coming)
                self._step(rank)
                heapq.heappush(coming, (self.clusters[rank].next_time, rank))
            if self._stuck(coming):
                raise everybody_waits(self.machines[0].rule)
        self.stop()

    def _all_coming(self) -> list[tuple[float, int]]:
        """When something happens next on each machine; those that are ready at once have contributed."""
        for rank, cluster in enumerate(self.clusters):
            cluster.deal()
            self._offer(rank)
        found = [(cluster.next_time, rank) for rank, cluster in enumerate(self.clusters)]
        heapq.heapify(found)
        return found

    def _stuck(self, coming: list[tuple[float, int]]) -> bool:
        nothing = not coming or coming[0][0] == math.inf
        return nothing and self._lands == self._called == math.inf and not self.machines[0].finished

    def _step(self, rank: int) -> None:
        cluster = self.clusters[rank]
        if cluster.next_time < math.inf:
            cluster.step()
            cluster.deal()
        self._offer(rank)
        cluster.deal()

    def _offer(self, rank: int) -> None:
        """If a machine is ready, it contributes, or calls the others."""
        machine = self.machines[rank]
        if not machine.ready:
            return
        if not machine.way.joins:
            self._contribute(rank, self.clusters[rank].time)
        elif self._called == math.inf:
            self._called = self.clusters[rank].time + self.link.latency

    def _answer_call(self) -> None:
        called, self._called = self._called, math.inf
        for rank, cluster in enumerate(self.clusters):
            self._contribute(rank, max(called, cluster.time))

    def _contribute(self, rank: int, time: float) -> None:
        machine = self.machines[rank]
        machine.spent = self.clusters[rank].take_seconds()
        self._brought[rank] = machine.contribute()
        self.clusters[rank].restart()
        if not machine.waits:
            self.clusters[rank].go_on(time)
        self._contributed = max(self._contributed, time)
        if len(self._brought) == len(self.clusters):
            self._lands = self._contributed + self.link.exchange(
                BYTES * self.sent * machine.crossing, len(self.clusters)
            )

    def _land(self) -> Update | None:
        time, self._lands, self._contributed = self._lands, math.inf, 0.0
        brought = [self._brought.pop(rank) for rank in range(len(self.clusters))]
        said = Joint([contribution for contribution, _ in brought])
        total = summed([vector for _, vector in brought])
        first = None
        for cluster, (_, vector) in zip(self.clusters, brought, strict=True):
            landed = cluster.land(time, said, vector.copy_(total), first)
            if first is None:
                update, first = landed, self.machines[0]
        self.exchanges += 1
        return update

    def waiting_shares(self) -> list[float]:
        """Of each worker of all machines, the share of its virtual time since the last call that it waited."""
        return [share for cluster in self.clusters for share in cluster.waiting_shares()]

    def reading_seconds(self) -> float:
        """None: in virtual time, batches are at hand."""
        return 0.0

    def update_seconds(self) -> float:
        """Virtual seconds that a server needs for an update."""
        return self.clusters[0].update_seconds()

    def pause(self) -> None:
        """Nothing to end."""

    def stop(self) -> Update | None:
        """Ends the run; what is not in an update is dealt anew if it goes on."""
        for cluster in self.clusters:
            cluster.stop()
        return None

    def close(self) -> None:
        """Nothing to end: there are no processes."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The time: what the virtual workers of several machines hold is computed again."""
        return {"time": self.time}, {}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:  # noqa: ARG002
        """Takes up where `state` was taken."""
        for cluster in self.clusters:
            cluster.begin_at(float(values["time"]))


def machine_of(cluster: SimulatedCluster) -> MachineCoordinator:
    """What decides on the machine that the cluster is."""
    assert isinstance(cluster.coordinator, MachineCoordinator)
    return cluster.coordinator
