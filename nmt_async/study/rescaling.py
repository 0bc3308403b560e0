"""Conditions that update on other numbers of target tokens than what they are compared with, on the same schedule.

That is a fair question (the paper asks it), but not the only one: a larger batch bears a higher rate. For Adam the rate
that fits grows about with the square root of the batch (Malladi et al. 2022, *On the SDEs and Scaling Rules for
Adaptive Gradient Algorithms*).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmt_async.options import from_mapping
from nmt_async.quantity import Quantity
from nmt_async.study.comparison import Pair, compare
from nmt_async.study.conditions import Condition
from nmt_async.study.setting import Setting
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import expected
from nmt_async.training.optimizer_options import progress_quantity
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import training_plan

ALIKE = 1.1
"""Batches that differ by less than this factor count as the same: the rates that fit them differ by less than 5 %."""


@dataclass(frozen=True)
class Unscaled:
    """What is the same though the batches differ.

    Attributes:
        times: the condition's target tokens in an update over those of the other.
        rate: the learning rate, None if each has its own.
        warmup: the warm-up, where it is counted in updates, else None.
        warmup_tokens: target tokens of the other's warm-up, where there is a ``warmup``.
    """

    times: float
    rate: float | None
    warmup: Quantity | None
    warmup_tokens: float = 0.0


def unscaled(batches: tuple[float, float], options: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Unscaled | None:
    """What of the schedule takes no account of the batch; None if the batches are alike, or all does.

    Args:
        batches: target tokens in an update of a condition, and of what it is compared with.
        options: of ``train``, of both.
    """
    times = batches[0] / batches[1]
    if 1 / ALIKE <= times <= ALIKE:
        return None
    rate, warmup = _same(options, "learn-rate"), _same(options, "lr-warmup")
    counted = progress_quantity(str(warmup)) if warmup is not None else None
    if counted is not None and (counted.unit != "updates" or not counted.amount):
        counted = None
    if rate is None and counted is None:
        return None
    tokens = counted.amount * batches[1] if counted is not None else 0.0
    return Unscaled(times, None if rate is None else float(rate), counted, tokens)


def unscaled_runs(condition: Condition, baseline: Condition) -> Unscaled | None:
    """`unscaled`, by the batches that the conditions' runs had."""
    ours, theirs = (compare("effective batch", Pair(each)).value for each in (condition, baseline))
    options = condition.results[0].setting.options, baseline.results[0].setting.options
    return unscaled((ours, theirs), options)


def unscaled_settings(settings: Sequence[Setting], baseline: str, data: PreparedData) -> dict[str, Unscaled]:
    """`unscaled` before anything runs, by the batches to expect; by condition, those alone of which there is something.

    Args:
        baseline: the condition that the others are compared with.
    """
    options = {setting.condition: setting.options for setting in settings}
    batches = {}
    for condition, given in options.items():
        train = from_mapping(TrainOptions, given, condition)
        batches[condition] = expected(train, training_plan(train, data)).effective_batch
    found = {
        condition: unscaled((batches[condition], batches[baseline]), (given, options[baseline]))
        for condition, given in options.items()
    }
    return {condition: different for condition, different in found.items() if different is not None}


def _same(options: tuple[Mapping[str, Any], Mapping[str, Any]], key: str) -> Any:
    """The option of both, None if they differ in it."""
    default = getattr(TrainOptions, key.replace("-", "_"))
    values = {str(each.get(key, default)) for each in options}
    return values.pop() if len(values) == 1 else None
