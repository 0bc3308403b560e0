"""What to train with on workers that were measured: their speed is measured, what a token is worth is the study's.

The time to a quality is the tokens that a way of updating needs, over those that it makes in a second. How many it
needs beside synchronous Adam is what ``examples/repairs`` found (`WAYS`): Multi30k, a Transformer of 1.4 million
parameters, four workers, 2,000 target tokens in an update, each way at its own best learning rate. How many it makes is
simulated with the profile of the workers, and with what an optimizer's step adds to an update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nmt_async.cluster.profile import ClusterProfile
from nmt_async.formatting import number, percent
from nmt_async.planning.modes import Mode
from nmt_async.planning.simulation import even_plan, predict


@dataclass(frozen=True)
class Way:
    """A way of updating, and what a quality costs with it.

    Attributes:
        mode: for ``--sync-mode``; the hybrid sums as many pushes as there are workers.
        optimizer: for ``--optimizer``.
        predicted: whether workers compute on predicted parameters.
        price: the tokens that it needed for the final cross-entropy of synchronous Adam, over those of synchronous
            Adam; where it did not come as far, for the best that it reached.
    """

    mode: str
    optimizer: str
    predicted: bool
    price: float

    def options(self, workers: int) -> str:
        """As ``train`` takes them."""
        words = ["--sync-mode", self.mode, "--optimizer", self.optimizer]
        if self.mode == "hybrid":
            words += ["--accumulate", str(workers)]
            words += ["--weight-prediction", "last-step" if self.predicted else "none"]
        return " ".join(words)


PLAIN = Way("sync", "adam", False, 1.0)
"""With which all others are compared."""

WAYS = (
    PLAIN,
    Way("hybrid", "adam", False, 1.87),
    Way("sync", "muon", False, 0.83),
    Way("hybrid", "muon", True, 0.83),
)
"""Those that the study has run, with what it found."""

BATCHES = 32
"""Of each worker, that are simulated."""


@dataclass(frozen=True)
class Expected:
    """What a way is expected to give on the workers that were measured.

    Attributes:
        way: which.
        tokens_per_second: target tokens.
        waiting_share: of the workers' time.
        step_share: of the time in which an update's pushes come, what the optimizer's step takes of one core.
        sooner: how many times sooner it reaches a quality than synchronous Adam.
    """

    way: Way
    tokens_per_second: float
    waiting_share: float
    step_share: float
    sooner: float


def expected(
    profile: ClusterProfile, push_tokens: int, operations: Mapping[str, float], operations_per_token: float
) -> list[Expected]:
    """Each of `WAYS` on a cluster, the one that comes soonest to a quality first.

    Args:
        profile: of the workers.
        push_tokens: target tokens in a push.
        operations: of one step of each optimizer, in products of matrices.
        operations_per_token: of a gradient.
    """
    found = []
    for way in WAYS:
        if way.mode != "sync" and len(profile.workers) == 1:
            continue  # nobody waits, and nothing is stale
        seconds = profile.update_seconds(operations.get(way.optimizer, 0.0), operations_per_token)
        here = replace(profile, seconds_per_update=seconds)
        mode = Mode("hybrid:W" if way.mode == "hybrid" else way.mode)
        prediction = predict(mode, here, partial(even_plan, push_tokens), sent=0, batches=BATCHES)
        rate, updates = prediction.tokens_per_second, prediction.updates_per_second
        found.append(Expected(way, rate, prediction.waiting_share, seconds * updates, rate / way.price))
    plain = next(each.sooner for each in found if each.way is PLAIN)
    found = [replace(each, sooner=each.sooner / plain) for each in found]
    return sorted(found, key=lambda each: each.sooner, reverse=True)


def recommendation(ways: Sequence[Expected], workers: int) -> str:
    """The way that comes first, and why, in a few sentences.

    Args:
        ways: as `expected` gives them.
    """
    best, sync = ways[0], next(each for each in ways if each.way is PLAIN)
    lines = [f"Recommended here: {best.way.options(workers)}"]
    if best.way is PLAIN:
        return f"{lines[0]}\nNo other way is expected to reach a quality sooner on these workers."
    why = f"It should reach a quality {number(best.sooner, 2)} times sooner than synchronous Adam: "
    why += f"{number(best.tokens_per_second / sync.tokens_per_second, 2)} times its target tokens a second"
    if best.way.mode != "sync":
        why += f" (workers wait {percent(best.waiting_share)} of their time, {percent(sync.waiting_share)} in sync)"
    if best.way.price != 1.0:
        why += f", of which it needs {number(best.way.price, 2)} times as many (examples/repairs)"
    lines.append(f"{why}.")
    if best.way.optimizer != "adam":
        lines.append(f"The optimizer's step takes {percent(best.step_share)} of the time in which its pushes come.")
    return "\n".join(lines)
