"""The figures of a cluster at work, computed in one way from the observed pushes of real and of simulated ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from nmt_async.cluster.handled import Handled


def by_worker(pushes: Iterable[Handled]) -> dict[int, list[Handled]]:
    """Each worker's pushes, in their order."""
    sorted_out: dict[int, list[Handled]] = defaultdict(list)
    for push in pushes:
        sorted_out[push.worker].append(push)
    return dict(sorted(sorted_out.items()))


def throughput(pushes: Sequence[Handled]) -> float:
    """Target tokens a second of one sitting: over workers, the sum of each one's from its first push to its last.

    A worker's first push counts for its moment only; a worker of one push does not count.
    """
    rate = 0.0
    for own in by_worker(pushes).values():
        seconds = own[-1].heard - own[0].heard
        if seconds > 0:
            rate += sum(push.computed.tokens for push in own[1:]) / seconds
    return rate


def waiting_share(pushes: Sequence[Handled]) -> float:
    """The share of workers' time that they waited, in one sitting; of each worker the first push does not count."""
    counted = [push.computed for own in by_worker(pushes).values() for push in own[1:]]
    waited = sum(computed.waited for computed in counted)
    total = waited + sum(computed.seconds for computed in counted)
    return waited / total if total else 0.0
