"""When a push was dealt, computed and taken in: what an observer of a cluster, real or simulated, is told of each."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.cluster.task import Computed


@dataclass(frozen=True)
class Handled:
    """One push. Moments are seconds of the cluster's clock, as the server sees them.

    Attributes:
        worker: who computed it.
        computed: what it told, with its own seconds of computing and waiting.
        dealt: when the server gave the task out.
        heard: when the server began to take the push in.
        done: when it had done so, the update included if there was one.
        updated: the push completed an update.
    """

    worker: int
    computed: Computed
    dealt: float
    heard: float
    done: float
    updated: bool
