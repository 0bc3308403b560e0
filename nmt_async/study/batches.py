"""Conditions whose updates hold other batches than those of what they are compared with, on the same schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nmt_async.quantity import Quantity
from nmt_async.study.comparison import Pair, compare
from nmt_async.study.conditions import Condition
from nmt_async.training.options import TrainOptions, progress_quantity

ALIKE = 1.1
"""Batches that differ by less than this factor are taken for the same."""


@dataclass(frozen=True)
class Unscaled:
    """What is the same though the batches differ.

    Attributes:
        times: the condition's target tokens in an update over those of the other.
        rate: the learning rate, None if each has its own.
        warmup: the warm-up, where it is counted in updates, else None.
    """

    times: float
    rate: float | None
    warmup: Quantity | None


def unscaled(condition: Condition, baseline: Condition) -> Unscaled | None:
    """What of the schedule does not take account of the batch; None if the batches are alike, or all does."""
    times = compare("effective batch", Pair(condition, baseline)).value
    if 1 / ALIKE <= times <= ALIKE:
        return None
    rate, warmup = _same(condition, baseline, "learn-rate"), _same(condition, baseline, "lr-warmup")
    counted = progress_quantity(str(warmup)) if warmup is not None else None
    if counted is not None and counted.unit != "updates":
        counted = None
    if rate is None and counted is None:
        return None
    return Unscaled(times, None if rate is None else float(rate), counted)


def _same(one: Condition, other: Condition, key: str) -> Any:
    """The option of both, None if they differ in it."""
    default = getattr(TrainOptions, key.replace("-", "_"))
    values = {str(each.results[0].setting.options.get(key, default)) for each in (one, other)}
    return values.pop() if len(values) == 1 else None
