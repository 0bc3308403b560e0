"""The corrections that settings name, as a server takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nmt_async.sync.corrections.by_age import Decayed, Scaled
from nmt_async.sync.corrections.correction import Correction
from nmt_async.sync.corrections.delay_compensated import DelayCompensated
from nmt_async.sync.corrections.delay_feedback import DelayFeedback
from nmt_async.sync.corrections.gap_aware import GapAware
from nmt_async.sync.corrections.look_ahead import LookAhead
from nmt_async.sync.corrections.prediction import Prediction
from nmt_async.sync.corrections.quantized_pulls import Quantise, QuantizedPulls
from nmt_async.sync.corrections.settings import CorrectionSettings
from nmt_async.sync.corrections.worker_momentum import MomentumAhead, WorkerMomentum
from nmt_async.sync.optimizers.settings import OptimizerSettings


@dataclass(frozen=True)
class Corrections:
    """What a server does because gradients are stale; nothing, by default, and that costs nothing.

    Attributes:
        each: those that weigh pushes or hear of updates, in the order in which they are asked.
        look_ahead: what pulls give in the place of the parameters.
        momentum: that of each worker, in the place of the optimizer's.
    """

    each: Sequence[Correction] = ()
    look_ahead: LookAhead | None = None
    momentum: WorkerMomentum | None = None

    @property
    def looks_at_parameters(self) -> bool:
        """Whether one wants the parameters that a push was computed on."""
        return any(correction.looks_at_parameters for correction in self.each)

    @property
    def watches_updates(self) -> bool:
        """Whether one is to hear of each update."""
        return any(correction.watches_updates for correction in self.each)


NOTHING = Corrections()


def build_corrections(
    settings: CorrectionSettings, optimizer: OptimizerSettings, initial: Tensor, workers: int, staleness: float,
    quantise: Quantise | None = None,
) -> Corrections:  # fmt: skip
    """Those that settings name.

    Args:
        optimizer: whose momentum it is.
        initial: the parameters (size,) at the beginning.
        workers: how many there are.
        staleness: of a push, in updates, as it is to be expected on average.
        quantise: what workers compute on; None: it is not quantised.
    """
    each = [DelayFeedback(initial, settings.feedback)] if settings.feedback else []
    ahead, momentum = _look_ahead(settings, optimizer, initial, workers, staleness)
    if quantise is not None:
        ahead = QuantizedPulls(initial, quantise, ahead)
    return Corrections([*each, *_staleness_rule(settings, initial)], ahead, momentum)


def _staleness_rule(settings: CorrectionSettings, like: Tensor) -> list[Correction]:
    if settings.rule == "scale":
        return [Scaled(settings.grace)]
    if settings.rule == "decay":
        return [Decayed(settings.decay, settings.cutoff)]
    if settings.rule == "gap-aware":
        return [GapAware(like)]
    if settings.rule == "delay-compensated":
        return [DelayCompensated(like, settings.compensation, settings.adaptive)]
    return []


def _look_ahead(
    settings: CorrectionSettings, optimizer: OptimizerSettings, initial: Tensor, workers: int, staleness: float
) -> tuple[LookAhead | None, WorkerMomentum | None]:
    if ahead := settings.updates_ahead(staleness):
        return Prediction(initial, ahead), None
    if settings.momentum == "none":
        return None, None
    momentum = WorkerMomentum(initial, optimizer, workers, settings.momentum == "dana-slim")
    return None if momentum.slim else MomentumAhead(initial, momentum), momentum
