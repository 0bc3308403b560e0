"""What observed pushes of a cluster tell: its throughput, its waiting, and a profile that simulates it.

They are computed in one way from the pushes of real and of simulated clusters. Of the profile, for each worker: least
squares of its computing seconds over the tokens of its batches, jitter from how much the logarithm of what is left
changes from one batch to the next, latency from what it waited beyond the server's own doing. Of the server: the mean
times of pushes, without the updates that they completed, and of these updates.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.task import Handled
from nmt_async.errors import RunFailure


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


LEAST_PUSHES = 3
"""Of a worker, with which a profile is made of it."""

SURENESS = 4.0
"""The line's slope and its value at 0 must be so many of their standard errors, else time is proportional to tokens."""

BEHIND = 0.001
"""Seconds after the server was done with another push within which a push may have waited for that."""


def calibrated(sittings: Sequence[Sequence[Handled]], name: str) -> ClusterProfile:
    """The profile of the cluster whose pushes these are.

    Args:
        sittings: stretches of work without a break; of each worker the first push of a stretch does not count.
        name: of the profile.

    Raises:
        RunFailure: there are not enough pushes.
    """
    counted: dict[int, list[list[Handled]]] = {}
    trips: dict[int, list[float]] = {}
    for sitting in sittings:
        alone = _not_queued(sitting)
        for worker, own in by_worker(sitting).items():
            counted.setdefault(worker, []).append(own[1:])
            trips.setdefault(worker, []).extend(_round_trips(own, alone))
    if not counted or min(sum(map(len, parts)) for parts in counted.values()) < LEAST_PUSHES:
        raise RunFailure("too few batches were measured for a profile; give more --batches or more --rounds.")
    workers = tuple(_worker(counted[worker], trips[worker]) for worker in sorted(counted))
    return ClusterProfile(
        name, workers, *_server([push for parts in counted.values() for own in parts for push in own])
    )


def _worker(sittings: Sequence[Sequence[Handled]], trips: Sequence[float]) -> WorkerProfile:
    tokens = [np.array([push.computed.tokens for push in own], dtype=np.float64) for own in sittings]
    seconds = [np.array([push.computed.seconds for push in own]) for own in sittings]
    fixed, each = time_line(np.concatenate(tokens), np.concatenate(seconds))
    spread = _jitter([np.log(time / (fixed + each * size)) for time, size in zip(seconds, tokens, strict=True)])
    return WorkerProfile(
        tokens_per_second=_rounded(1 / each),
        seconds_per_batch=_rounded(fixed),
        jitter=_rounded(spread),
        latency=_rounded(max(0.0, fmean(trips) / 2) if trips else 0.0),
    )


def time_line(tokens: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Seconds of a batch, and of each of its tokens, by least squares; both arguments (batches,).

    A long batch's time varies more than a short one's, so the second of two fits weighs by the first one's times.
    Where the batches are too alike to tell the two apart, all time is that of tokens.
    """
    proportional = float(seconds.sum() / tokens.sum())
    if len(tokens) < LEAST_PUSHES or np.ptp(tokens) == 0:
        return 0.0, proportional
    expected = np.full_like(seconds, seconds.mean())
    for _ in range(2):
        design = np.stack([np.ones_like(tokens), tokens], axis=1) / expected[:, None]
        (fixed, each), *_ = np.linalg.lstsq(design, seconds / expected, rcond=None)
        off = seconds / expected - design @ [fixed, each]
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * (off @ off) / max(len(tokens) - 2, 1))
        expected = np.maximum(fixed + each * tokens, 0.1 * expected)
    # Rounding leaves an error of about 1e-16 where there is no jitter at all.
    if each <= SURENESS * errors[1] or fixed <= SURENESS * errors[0] + 1e-9 * seconds.mean():
        return 0.0, proportional
    return float(fixed), float(each)


def _jitter(logarithms: Sequence[np.ndarray]) -> float:
    """Their standard deviation, from the differences of neighbours (von Neumann 1941).

    A machine that is slow for a while slows all its workers; that is no jitter, for which one of them would wait.
    """
    differences = np.concatenate([np.diff(each) for each in logarithms])
    return float(np.sqrt(np.mean(differences**2) / 2)) if len(differences) else 0.0


def _not_queued(sitting: Sequence[Handled]) -> set[int]:
    """Numbers (`id`) of the pushes that the server took in as they came."""
    alone, free = set(), -np.inf
    for push in sorted(sitting, key=lambda push: push.heard):
        if push.heard - free > BEHIND:
            alone.add(id(push))
        free = push.done
    return alone


def _round_trips(own: Sequence[Handled], alone: set[int]) -> list[float]:
    """Seconds that a worker waited between two pushes beyond what the server needed to answer the first of them."""
    pairs = list(itertools.pairwise(own))
    some = [(before, after) for before, after in pairs if id(before) in alone] or pairs
    return [after.computed.waited - (after.dealt - before.heard) for before, after in some]


def _server(pushes: Sequence[Handled]) -> tuple[float, float]:
    """Seconds of a push, and of an update beside those."""
    updating = [push.updating for push in pushes if push.updated]
    plain = fmean(max(0.0, push.done - push.heard - push.updating) for push in pushes)
    return _rounded(plain), _rounded(fmean(updating) if updating else 0.0)


def _rounded(value: float) -> float:
    """Six digits: no measurement has more."""
    return float(f"{value:.6g}")
