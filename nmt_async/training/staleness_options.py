"""The options of ``train`` that say what is done because a gradient is stale."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nmt_async.errors import UserError
from nmt_async.model.quantization_options import RetrainingOptions
from nmt_async.options import OtherThan, holds, option
from nmt_async.sync.corrections.settings import (
    LOOK_AHEADS,
    PREDICTIONS,
    STALENESS_RULES,
    WITH_MOMENTUM,
    CorrectionSettings,
)

STALE = {"sync_mode": OtherThan("sync"), "oldest_push": OtherThan(0), "max_staleness": OtherThan(0)}
PREDICTABLE = {**STALE, "delay_feedback": 0.0}
PREDICTED = {**PREDICTABLE, "sync_mode": ("hybrid", "async"), "staleness_rule": "none", "momentum_lookahead": "none"}
"""Where workers compute on predicted parameters if nobody says otherwise: where pushes may be old, and no other option
says what to do about it. In adaptive updates the staleness falls as they sum more pushes, so that no number of updates
is right for all."""
FRESH = "leave it out, since no push is stale there"
MOST_PREDICTED = 100
MOST_GRACE = 1_000_000


@dataclass(frozen=True)
class PredictionOptions:
    """The parameters that workers compute on."""

    weight_prediction: str | None = option(
        None,
        "last-step: workers compute on the parameters that are to be expected when their push arrives if updates go on "
        "as the last one did; none: on those that there are (default: last-step in hybrid and async, where pushes may "
        "be old and no other option says what to do about it).",
        group="Staleness",
        choices=PREDICTIONS,
        only_with=PREDICTABLE,
        neutral=("none",),
        hint="leave it out, since there is no delay left to look ahead of",
    )


@dataclass(frozen=True)
class StalenessOptions(PredictionOptions, RetrainingOptions):
    """What a stale gradient is worth, what a step makes good, and what workers compute on."""

    staleness_rule: str = option(
        "none",
        f"What is done to a gradient of older parameters, by its age in updates; "
        f"{'; '.join(f'{name}: {summary}' for name, summary in STALENESS_RULES.items())}.",
        group="Staleness",
        choices=tuple(STALENESS_RULES),
        only_with=STALE,
        hint=FRESH,
    )
    staleness_grace: int = option(
        0,
        "Pushes up to so many updates old keep their whole weight; each update more divides by one more.",
        group="Staleness",
        only_with={"staleness_rule": "scale"},
    )
    staleness_decay: float = option(
        0.1,
        "Shrink by exp(-DECAY) for each update of age.",
        group="Staleness",
        metavar="DECAY",
        only_with={"staleness_rule": "decay"},
    )
    staleness_cutoff: float = option(
        8.0,
        "The age, in updates, from which on nothing of a gradient counts.",
        group="Staleness",
        metavar="AGE",
        only_with={"staleness_rule": "decay"},
    )
    compensation: float | None = option(
        None,
        "How strongly a gradient is moved to where the parameters are now (default: 0.04, or 2 where it is adaptive).",
        group="Staleness",
        only_with={"staleness_rule": "delay-compensated"},
    )
    adaptive_compensation: bool = option(
        False,
        "Divide the compensation of each element by its gradients' running magnitude.",
        group="Staleness",
        only_with={"staleness_rule": "delay-compensated"},
    )

    delay_feedback: float = option(
        0.0,
        "Error feedback for delay: add so much of what the step before was wrong by, since its gradients were stale, "
        "times their mean age; 1: all of it.",
        group="Staleness",
        metavar="SHARE",
        only_with=STALE,
        hint=FRESH,
    )
    prediction_updates: float | None = option(
        None,
        "How many updates ahead (default: as many as a push is old on average, or the nearest whole number if that is "
        "more).",
        group="Staleness",
        only_with=({**PREDICTABLE, "weight_prediction": "last-step"}, {**PREDICTED, "weight_prediction": None}),
    )
    momentum_lookahead: str = option(
        "none",
        f"{'; '.join(f'{name}: {summary}' for name, summary in LOOK_AHEADS.items())}.",
        group="Staleness",
        choices=tuple(LOOK_AHEADS),
        only_with={
            **STALE,
            "optimizer": (None, *WITH_MOMENTUM),
            "momentum": OtherThan(0.0),
            "delay_feedback": 0.0,
            "weight_prediction": (None, "none"),
        },
        excludes=("nesterov",),
    )

    def settled_prediction(self) -> str:
        """The weight prediction that is meant, also where none is named."""
        if not holds(self, PREDICTABLE):
            return "none"
        return self.weight_prediction or ("last-step" if holds(self, PREDICTED) else "none")

    def corrections(self) -> CorrectionSettings:
        """What these options name."""
        strength = 2.0 if self.adaptive_compensation else 0.04
        return CorrectionSettings(
            rule=self.staleness_rule,
            grace=self.staleness_grace,
            decay=self.staleness_decay,
            cutoff=self.staleness_cutoff,
            compensation=strength if self.compensation is None else self.compensation,
            adaptive=self.adaptive_compensation,
            feedback=self.delay_feedback,
            prediction=self.settled_prediction(),
            predicted=self.prediction_updates,
            momentum=self.momentum_lookahead,
            quantized=self.quantize_bits is not None,
        )

    def check_staleness(self) -> None:
        """Raises UserError for a number out of its range."""
        if not 0 <= self.staleness_grace <= MOST_GRACE:
            raise UserError(f"--staleness-grace: {self.staleness_grace} is not from 0 to {MOST_GRACE:,}.")
        if not 0.0 <= (self.prediction_updates or 0.0) <= MOST_PREDICTED:
            raise UserError(
                f"--prediction-updates: {self.prediction_updates} is not a number from 0 to {MOST_PREDICTED}."
            )
        for name in ("staleness_decay", "compensation", "delay_feedback"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < math.inf:
                raise UserError(f"--{name.replace('_', '-')}: {value} is not a number from 0 on.")
        if not 0.0 < self.staleness_cutoff < math.inf:
            raise UserError(f"--staleness-cutoff: {self.staleness_cutoff} is not a number above 0.")
