"""Warns of a comparison in which modes update on different numbers of tokens with one learning rate.

That is a fair question (the paper asks it), but not the only one: a larger batch bears a higher rate. For Adam the rate
that fits grows about with the square root of the batch (Malladi et al. 2022, *On the SDEs and Scaling Rules for
Adaptive Gradient Algorithms*).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nmt_async.options import from_mapping
from nmt_async.quantity import Quantity
from nmt_async.study.setting import Setting
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import Expectation, about
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import expected, training_plan

ALIKE = 0.02
"""Effective batches that differ by no more are the same: batches never fill their budget quite alike."""


def unscaled(settings: Sequence[Setting], baseline: str, data: PreparedData) -> list[str]:
    """A sentence for each condition with another effective batch than the baseline's, and the same learning rate."""
    first = {setting.condition: setting for setting in reversed(settings)}
    described = {}
    for condition in dict.fromkeys(setting.condition for setting in settings):
        train = from_mapping(TrainOptions, first[condition].options, condition)
        described[condition] = train, expected(train, training_plan(train, data))
    base, update = described[baseline]
    return [
        _sentence(condition, own, baseline, update, train)
        for condition, (train, own) in described.items()
        if train.learn_rate == base.learn_rate and abs(own.effective_batch / update.effective_batch - 1) > ALIKE
    ]


def _sentence(condition: str, own: Expectation, baseline: str, update: Expectation, train: TrainOptions) -> str:
    rate, ratio = train.learn_rate, own.effective_batch / update.effective_batch
    text = (
        f"{condition} updates on about {about(own.effective_batch)} target tokens, {baseline} on about "
        f"{about(update.effective_batch)}, both at a learning rate of {rate:g}; for a rate that fits its batch, add "
        f"{condition}@{rate * math.sqrt(ratio):.2g} (by the square root of the ratio)"
    )
    warmup = train.lr_warmup
    if warmup.unit != "updates" or not warmup.amount:
        return f"{text}."
    of_own, of_base = own.amount(warmup, "tokens"), update.amount(warmup, "tokens")
    tokens = Quantity(float(f"{of_base:.2g}"), "tokens")
    return (
        f"{text}; a warm-up of {about(warmup.amount)} updates is about {about(of_own)} target tokens for it and "
        f"{about(of_base)} for {baseline}: --lr-warmup {tokens} is the same for all."
    )
