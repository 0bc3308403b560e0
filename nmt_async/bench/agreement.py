"""How well a simulation with a calibrated profile foretells what real processes do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from nmt_async.cluster.handled import Handled
from nmt_async.cluster.profile import ClusterProfile
from nmt_async.planning.figures import throughput, waiting_share
from nmt_async.planning.simulation import nominal_cluster
from nmt_async.sync.rules import Rule
from nmt_async.text.plan import BatchPlan

SIMULATED_PUSHES = 1000
"""Of each worker, so that the jitter of single batches does not show."""


@dataclass(frozen=True)
class Compared:
    """A figure, as it was predicted and as it was measured."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else float("inf") if self.predicted else 0.0


@dataclass(frozen=True)
class Agreement:
    """Between a simulation and a measurement of one cluster.

    Attributes:
        name: of the contender.
        tokens_per_second: target tokens.
        waiting_share: of its workers' time.
    """

    name: str
    tokens_per_second: Compared
    waiting_share: Compared


def agreements(
    profile: ClusterProfile,
    rules: Mapping[str, Rule],
    plan: BatchPlan,
    sittings: Mapping[str, Sequence[Sequence[Handled]]],
    seed: int,
) -> list[Agreement]:
    """Simulates every cluster with the profile, on the same batches; what is measured is the median of sittings.

    Args:
        rules: of each cluster.
        plan: of their batches.
        sittings: of each cluster, the pushes of each of its turns; its workers are the first of the profile's.
        seed: of the simulation's jitter.
    """
    compared = []
    for name, rule in rules.items():
        measured = sittings[name]
        workers = len({push.worker for pushes in measured for push in pushes})
        simulated = _simulated(rule, replace(profile, workers=profile.workers[:workers]), plan, seed)
        compared.append(
            Agreement(
                name,
                Compared(throughput(simulated), median(map(throughput, measured))),
                Compared(waiting_share(simulated), median(map(waiting_share, measured))),
            )
        )
    return compared


def _simulated(rule: Rule, profile: ClusterProfile, plan: BatchPlan, seed: int) -> list[Handled]:
    pushes: list[Handled] = []
    # The profile's latency is of messages that have brought everything: nothing is left for the link.
    cluster = nominal_cluster(rule, profile, plan, 0, seed, pushes.append)
    for _ in cluster.updates():
        if len(pushes) >= SIMULATED_PUSHES * len(profile.workers):
            break
    return pushes
