"""Where a way of updating wins in time: what it costs in tokens, by how fast a simulated cluster makes them.

The runs say how many times the tokens of their baseline a quality takes. A simulation without gradients says how many
times its tokens a second there are where one worker is slower than the others. What a quality takes is held to be the
same on all these clusters; runs on an uneven one say how nearly it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from nmt_async.cluster.profile import ClusterProfile, profile_for
from nmt_async.errors import UserError
from nmt_async.formatting import percent
from nmt_async.planning.modes import Mode
from nmt_async.planning.simulation import even_plan, predict
from nmt_async.study.comparison import Pair, Ratio, compare
from nmt_async.study.conditions import Condition, Conditions, beside
from nmt_async.study.tables import beside_table, link
from nmt_async.study.wording import figure, times
from nmt_async.text.plan import BatchPlan
from nmt_async.training.options import TrainOptions

SPEEDS = (1.0, 0.9, 0.75, 0.5, 0.25)
"""Of the slowest worker, as a share of the others'."""

BATCHES = 256
"""That each worker computes in a simulation, at least."""


def uneven(profile: ClusterProfile, speed: float) -> ClusterProfile:
    """The profile with a first worker that takes 1 / ``speed`` times as long for everything it computes."""
    first = profile.workers[0]
    slow = replace(
        first,
        tokens_per_second=first.tokens_per_second * speed,
        seconds_per_batch=first.seconds_per_batch / speed,
    )
    return replace(profile, workers=(slow, *profile.workers[1:]))


def predicted_speed(condition: Condition, speed: float) -> float:
    """Target tokens a second of the condition's way of updating, where its first worker is so much slower.

    Raises:
        UserError: its runs were not on a simulated cluster of equal workers.
    """
    result = condition.results[0]
    options = result.setting.options
    if result.cluster != "simulated":
        raise UserError(
            f"{condition.name} was not run on a simulated cluster; leave it out of the map of uneven workers."
        )
    equal = profile_for(str(options.get("profile") or "paper"), result.workers)
    if len(set(equal.workers)) > 1:
        raise UserError(f"{condition.name} has uneven workers already; leave it out of the map of uneven workers.")
    profile = uneven(equal, speed)
    tokens = int(options.get("mini-batch-words", TrainOptions().mini_batch_words))
    return _predicted(result.setting.mode, profile, tokens, result.parameters)


@cache
def _predicted(mode: str, profile: ClusterProfile, tokens: int, parameters: int) -> float:
    """Target tokens a second, of pushes of ``tokens``; the same for every learning rate."""

    def plan(pushes: int, parts: int) -> BatchPlan:
        return even_plan(tokens, pushes, parts)

    return predict(Mode(mode), profile, plan, parameters, BATCHES).tokens_per_second


def winning_table(shown: Sequence[Condition], conditions: Conditions) -> str:
    """How many times sooner than by the baseline a quality comes, by the slowest worker's speed.

    In bold where the whole interval says sooner and covers seeds too: of one seed nothing is decided.
    """
    rows = []
    for condition, baseline in beside(shown, conditions):
        price = compare("tokens to quality", Pair(condition, baseline))
        assert isinstance(price, Ratio)
        faster = (predicted_speed(condition, speed) / predicted_speed(baseline, speed) for speed in SPEEDS)
        rows.append([link(condition), figure(price), *(_cell(price, times_as_fast) for times_as_fast in faster)])
    head = ["condition", "tokens, times baseline's", *(f"slowest at {percent(speed)}" for speed in SPEEDS)]
    return beside_table(head, rows)


def _times_sooner(price: Ratio, faster: float) -> Ratio:
    value, low, high = (faster / each if each else math.inf for each in (price.value, price.high, price.low))
    return replace(price, value=value, low=low, high=high)


def _cell(price: Ratio, faster: float) -> str:
    if not math.isfinite(price.value) or not price.value:  # one of the two never came to the other's quality
        return times(price.value)
    sooner = _times_sooner(price, faster)
    return f"**{figure(sooner)}**" if sooner.low > 1 and sooner.over.startswith("seeds") else figure(sooner)
