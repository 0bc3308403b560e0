"""When pushes become an update: a mode is a rule, by its name here. The few numbers beside it are `Waiting`."""

from __future__ import annotations

from nmt_async.sync.rules.adaptive import Adaptive
from nmt_async.sync.rules.hybrid import Asynchronous, Hybrid
from nmt_async.sync.rules.rule import Round, Rule, Standing, Waiting
from nmt_async.sync.rules.synchronous import Synchronous

__all__ = [
    "MODES", "RULES", "Adaptive", "Asynchronous", "Hybrid", "Round", "Rule", "Standing", "Synchronous",
    "Waiting", "rule_for",
]  # fmt: skip

RULES: dict[str, type[Rule]] = {rule.mode: rule for rule in (Synchronous, Asynchronous, Hybrid, Adaptive)}
"""Each rule by its mode."""

MODES = tuple(RULES)
NOTHING_SAID = Waiting()


def rule_for(mode: str, workers: int, accumulate: int | None = None, waiting: Waiting = NOTHING_SAID) -> Rule:
    """The rule of a mode's name.

    Args:
        accumulate: N; None: what the mode has by default.
        waiting: the other numbers.

    Raises:
        ValueError: an unknown mode, a count below 1, an N that the mode does not take, or numbers that mean nothing to
            it or do not go together.
    """
    if workers < 1 or (accumulate is not None and accumulate < 1):
        raise ValueError("workers and accumulate must be 1 or more")
    if mode not in RULES:
        raise ValueError(f"{mode!r} is not one of {', '.join(MODES)}")
    rule = RULES[mode]
    for name in waiting.given():
        if name not in rule.takes:
            able = " and ".join(other for other in MODES if name in RULES[other].takes)
            raise ValueError(f"{name.replace('_', ' ')} means nothing in {mode}; it is for {able}")
    return rule.of(workers, accumulate, waiting)
