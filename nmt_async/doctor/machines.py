"""The machines of a planned run, which all run ``doctor`` at the same time: do they reach each other, and how fast?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch

from nmt_async import __version__
from nmt_async.cluster.profile import LinkProfile
from nmt_async.doctor.finding import Finding
from nmt_async.errors import RunFailure, UserError
from nmt_async.machines.team import Team
from nmt_async.training.options import TrainOptions

PROBE = 2**21
"""Numbers of four bytes that are summed to find how fast the links are."""

PINGS, SUMS = 11, 5
CLOCKS_APART = 2.0
"""Seconds by which clocks may differ before it is worth a word."""


def machines_findings(options: TrainOptions, fingerprint: str | None, tell: Callable[[str], None]) -> Iterator[Finding]:
    """What there is to say of all of them; nothing if the planned run is on one.

    Args:
        fingerprint: of the prepared data; None if no data was given.
        tell: takes a sentence about who is waited for.

    Raises:
        UserError: options that cannot be.
    """
    invitation = options.invitation()
    if invitation is None:
        options.check_alone(shared=False)
        return
    try:
        with Team(invitation, options.machine_timeout_seconds, tell) as team:
            yield Finding("machines", "fine", f"this is {team.names[team.rank]} of {team.size}; all are here")
            yield from _alike(team, fingerprint)
            yield _clocks(team)
            yield _links(team)
    except (RunFailure, UserError) as failure:
        advice = "is doctor started on all of them, and are their ports open to each other?"
        yield Finding("machines", "wrong", str(failure).rstrip("."), advice)


def _alike(team: Team, fingerprint: str | None) -> Iterator[Finding]:
    """Versions and data are the same everywhere."""
    told = team.gather({"nmt-async": __version__, "torch": torch.__version__.partition("+")[0], "data": fingerprint})
    for what, advice in (("nmt-async", "install the same version"), ("torch", "install the same version"),
                         ("data", "copy the prepared folder from one of them")):  # fmt: skip
        values = [there[what] for there in told]
        if what == "data" and not any(values):
            continue
        shown = [str(value)[:12] if value else "none" for value in values]
        if len(set(values)) == 1:
            yield Finding(f"{what} alike", "fine", f"{shown[0]} on all")
        else:
            found = "; ".join(f"{name} has {value}" for name, value in zip(team.names, shown, strict=True))
            yield Finding(f"{what} alike", "wrong", found, advice)


def _clocks(team: Team) -> Finding:
    """How far the clocks are apart: all say at about the same moment what they show."""
    team.gather({})
    shown = [float(there["now"]) for there in team.gather({"now": time.time()})]
    apart = max(shown) - min(shown)
    if apart <= CLOCKS_APART:
        return Finding("clocks", "fine", f"at most {apart:.1f} s apart")
    names = team.names[shown.index(min(shown))], team.names[shown.index(max(shown))]
    advice = "training does not mind; the times in the logs of two machines cannot be compared"
    return Finding("clocks", "note", f"{names[0]} is {apart:.0f} s behind {names[1]}", advice)


def _links(team: Team) -> Finding:
    """How long an exchange takes: what is said, and what is summed."""
    pings, sums = [], []
    for _ in range(PINGS):
        begin = time.monotonic()
        team.group.gather(b"")
        pings.append(time.monotonic() - begin)
    vector = torch.zeros(PROBE)
    for _ in range(SUMS):
        begin = time.monotonic()
        team.group.add(vector)
        sums.append(time.monotonic() - begin)
    latency, seconds = statistics.median(pings), statistics.median(sums)
    bits = 8 * LinkProfile.crosses(4 * PROBE, team.size) / seconds
    size = 60e6 * 4
    base = latency + seconds * size / (4 * PROBE)
    return Finding(
        "links", "fine",
        f"{1000 * latency:.1f} ms for a word, {bits / 1e9:.2f} Gbit/s for sums; 60 M parameters take {base:.1f} s",
    )  # fmt: skip
