"""A cluster's profile: how fast its workers compute, how they fail, and what links and server cost.

Named profiles are assumptions to plan with; ``nmt-async bench --profile-out FILE`` writes one that was measured.
Random amounts are functions of (seed, worker, number): a simulation is the same whenever it is resumed or repeated.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nmt_async.errors import UserError, shown
from nmt_async.options import load_yaml
from nmt_async.writing import write_whole

MOST_WORKERS = 1_000_000
MOST_AMOUNT, LEAST_DIVISOR = 1e15, 1e-12
"""No number of a profile is above; and, unless it is 0, none below by which something is divided."""
DIVISORS = ("tokens-per-second", "bytes-per-second", "pause-every", "failure-every")
SERVER = {"seconds-per-push", "seconds-per-update", "operations-per-update"}
MOST_JITTER = 10.0
MOST_PAUSES = 1e15
"""In one batch; NumPy draws no more."""


@dataclass(frozen=True)
class WorkerProfile:
    """One worker. All times are in seconds; 0 means that it costs nothing or never happens.

    Attributes:
        tokens_per_second: target tokens, while it computes.
        seconds_per_batch: of each batch beside its tokens.
        jitter: standard deviation of the logarithm of its computing time.
        pause_every, pause_seconds: mean computing time between two pauses, and how long one is.
        failure_every, restart_seconds: mean time between two deaths, and until its replacement is ready.
        latency: of one message to or from the server.
        bytes_per_second: of its link, over which each pull brings the parameters and each push the gradient.
    """

    tokens_per_second: float = 10_000.0
    seconds_per_batch: float = 0.0
    jitter: float = 0.0
    pause_every: float = 0.0
    pause_seconds: float = 0.0
    failure_every: float = 0.0
    restart_seconds: float = 0.0
    latency: float = 0.0
    bytes_per_second: float = 0.0

    def computing(self, tokens: int, seed: int, worker: int, number: int) -> float:
        """Seconds for the worker's batch ``number`` of ``tokens``, its pauses included."""
        seconds = self.seconds_per_batch + tokens / self.tokens_per_second
        if not (self.jitter or self.pause_every):
            return seconds
        random = np.random.default_rng((seed, worker, number))
        if self.jitter:  # of mean 1
            seconds *= math.exp(self.jitter * random.standard_normal() - self.jitter**2 / 2)
        if self.pause_every:
            seconds += self.pause_seconds * random.poisson(min(seconds / self.pause_every, MOST_PAUSES))
        return seconds

    def lifetime(self, seed: int, worker: int, number: int) -> float:
        """Seconds that the worker's process ``number`` lives."""
        if not self.failure_every:
            return math.inf
        return float(np.random.default_rng((seed, worker, number, 1)).exponential(self.failure_every))

    def transfer(self, size: int) -> float:
        """Seconds for ``size`` bytes to or from the server."""
        return self.latency + (size / self.bytes_per_second if self.bytes_per_second else 0.0)


@dataclass(frozen=True)
class LinkProfile:
    """What lies between machines, of which each sends and receives at once; 0 means that it costs nothing.

    Attributes:
        latency: seconds of one message.
        bytes_per_second: of each machine's link, in each direction.
    """

    latency: float = 0.0
    bytes_per_second: float = 0.0

    def exchange(self, size: float, machines: int) -> float:
        """Seconds in which so many machines sum ``size`` bytes of each.

        A ring all-reduce brings 2 (M - 1) / M times the bytes over each link, in 2 (M - 1) steps; before it, what they
        say goes round the ring twice.
        """
        if machines < 2:
            return 0.0
        crossing = self.crosses(size, machines) / self.bytes_per_second if self.bytes_per_second else 0.0
        return 4 * (machines - 1) * self.latency + crossing

    @staticmethod
    def crosses(size: float, machines: int) -> float:
        """Bytes that each of so many machines sends, and receives, to sum ``size`` bytes of each."""
        return 2 * (machines - 1) / machines * size


@dataclass(frozen=True)
class ClusterProfile:
    """All workers, and the server, which takes one push after another. There may be several machines, each with a
    server and as many of the workers.

    Attributes:
        seconds_per_push: that the server needs to add a push.
        seconds_per_update: that it needs to apply an update.
        operations_per_update: floating-point operations in products of matrices that these seconds hold.
        between: what lies between machines.
    """

    name: str
    workers: tuple[WorkerProfile, ...]
    seconds_per_push: float = 0.0
    seconds_per_update: float = 0.0
    operations_per_update: float = 0.0
    between: LinkProfile = LinkProfile()

    def machines(self, count: int) -> list[ClusterProfile]:
        """The workers shared out in their order among so many machines, as many to each.

        Raises:
            ValueError: they cannot be.
        """
        each, rest = divmod(len(self.workers), count)
        if rest or not each:
            raise ValueError(f"{len(self.workers)} workers cannot be shared out among {count} machines")
        return [replace(self, workers=self.workers[each * rank : each * (rank + 1)]) for rank in range(count)]

    def update_seconds(self, operations: float, operations_per_token: float) -> float:
        """Seconds of an update by an optimizer that needs so many operations in products of matrices.

        What differs from the profile's own is computed as fast as the fastest worker computes a gradient.

        Args:
            operations_per_token: of the gradient; 0: not known, and nothing is added.
        """
        speed = operations_per_token * max(worker.tokens_per_second for worker in self.workers)
        more = (operations - self.operations_per_update) / speed if speed else 0.0
        return max(0.0, self.seconds_per_update + more)

    def as_mapping(self) -> dict[str, Any]:
        """The content of a profile file; equal workers come once, with their count."""
        entries: list[dict[str, Any]] = []
        for worker in self.workers:
            values = {name.replace("_", "-"): value for name, value in asdict(worker).items() if value}
            if entries and {**entries[-1], "count": 0} == {"count": 0, **values}:
                entries[-1]["count"] += 1
            else:
                entries.append({"count": 1, **values})
        server = {"seconds-per-push": self.seconds_per_push, "seconds-per-update": self.seconds_per_update}
        if self.operations_per_update:
            server["operations-per-update"] = self.operations_per_update
        between = {name.replace("_", "-"): value for name, value in asdict(self.between).items() if value}
        return {"name": self.name, "server": server, **({"between": between} if between else {}), "workers": entries}

    def dump(self) -> str:
        """The profile file, YAML."""
        text: str = yaml.safe_dump(self.as_mapping(), sort_keys=False)
        return text

    def save(self, path: Path) -> None:
        """Writes the profile file, never half."""
        write_whole(path, self.dump())


# A GPU of the paper's time and a Transformer-base at some ten thousand words a second; batches of one budget differ
# by their lengths, and the jitter stands for that. One per cent of a batch's time goes into the server.
_GPU = WorkerProfile(tokens_per_second=10_000.0, seconds_per_batch=0.01, jitter=0.15)


def _paper(workers: int) -> ClusterProfile:
    return ClusterProfile("paper", (_GPU,) * workers, seconds_per_push=0.0006, seconds_per_update=0.0006)


def _uneven(workers: int) -> ClusterProfile:
    half = replace(_GPU, tokens_per_second=_GPU.tokens_per_second / 2, seconds_per_batch=2 * _GPU.seconds_per_batch)
    return replace(_paper(workers), name="uneven", workers=(*(_GPU,) * (workers - 1), half))


def _pre_emptible(workers: int) -> ClusterProfile:
    worker = replace(_GPU, failure_every=30.0, restart_seconds=5.0)
    return replace(_paper(workers), name="pre-emptible", workers=(worker,) * workers)


def _slow_link(workers: int) -> ClusterProfile:
    worker = replace(_GPU, latency=0.005, bytes_per_second=125e6)  # Ethernet of 1 Gbit/s
    return replace(_paper(workers), name="slow-link", workers=(worker,) * workers)


PRESETS: dict[str, Callable[[int], ClusterProfile]] = {
    "paper": _paper,
    "uneven": _uneven,
    "pre-emptible": _pre_emptible,
    "slow-link": _slow_link,
}
"""By name: four equal GPUs (or as many as asked for); one at half speed; workers that die; a slow network."""


def profile_for(text: str, workers: int | None) -> ClusterProfile:
    """The profile that ``text`` names, or that the file ``text`` holds, of so many workers (None: all there are, or 4).

    Raises:
        UserError: neither a name nor a readable profile, or one of fewer workers.
    """
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"--workers: {workers} is not a number from 1 to {MOST_WORKERS:,}.")
    if text in PRESETS:
        return PRESETS[text](workers or 4)
    if not os.path.isfile(text):
        raise UserError(f"--profile: {shown(text)} is neither a file nor one of {', '.join(PRESETS)}.")
    profile = _parsed(load_yaml(Path(text)), text)
    count = len(profile.workers)
    if workers is not None and workers > count:
        raise UserError(f"--profile {text} describes {count} workers; give --workers {count} or fewer.")
    return replace(profile, workers=profile.workers[:workers])


def _parsed(values: Mapping[str, Any], where: str) -> ClusterProfile:
    unknown = set(values) - {"name", "server", "between", "workers"}
    if unknown or not isinstance(values.get("workers"), list) or not values["workers"]:
        problem = f"no key is called {shown(sorted(unknown)[0])}" if unknown else "it lists no workers"
        raise UserError(f"--profile {where}: {problem}; it holds name, server, between and workers.")
    link = LinkProfile(**_amounts(values.get("between", {}), {"latency", "bytes-per-second"}, where))
    server = _amounts(values.get("server", {}), SERVER, where)
    workers: list[WorkerProfile] = []
    names = {field.name.replace("_", "-") for field in dataclasses.fields(WorkerProfile)}
    for entry in values["workers"]:
        amounts = _amounts(entry, names | {"count"}, where)
        count = amounts.pop("count", 1)
        if count != int(count) or not 1 <= count + len(workers) <= MOST_WORKERS:
            raise UserError(f"--profile {where}: count {count:g} is not a number of workers.")
        if amounts.get("tokens_per_second", 1.0) <= 0:
            raise UserError(f"--profile {where}: tokens-per-second must be above 0.")
        if amounts.get("jitter", 0.0) > MOST_JITTER:
            raise UserError(f"--profile {where}: jitter must be at most {MOST_JITTER:g}.")
        workers += [WorkerProfile(**amounts)] * int(count)
    return ClusterProfile(str(values.get("name", Path(where).stem)), tuple(workers), **server, between=link)


def _amounts(values: Any, names: set[str], where: str) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise UserError(f"--profile {where}: {shown(values)} is not a mapping of names to numbers.")
    amounts = {}
    for name, value in values.items():
        if name not in names:
            raise UserError(
                f"--profile {where}: no key is called {shown(name)}; choose from {', '.join(sorted(names))}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(f"--profile {where}: {name} {shown(value)} is not a number from 0 on.")
        least = LEAST_DIVISOR if name in DIVISORS and value else 0
        if not least <= value <= MOST_AMOUNT:
            raise UserError(f"--profile {where}: {name} {shown(value)} is not from {least:g} to {MOST_AMOUNT:g}.")
        amounts[name.replace("-", "_")] = float(value)
    return amounts
