"""The corrections that settings name."""

from __future__ import annotations

from torch import Tensor

from nmt_async.sync.corrections.by_age import Decayed, Scaled
from nmt_async.sync.corrections.correction import Correction
from nmt_async.sync.corrections.delay_compensated import DelayCompensated
from nmt_async.sync.corrections.gap_aware import GapAware
from nmt_async.sync.corrections.settings import CorrectionSettings


def build_corrections(settings: CorrectionSettings, like: Tensor) -> list[Correction]:
    """Those that settings name, in the order in which a server asks them; none costs nothing.

    Args:
        like: a vector (size,) of the kind of the parameters.
    """
    if settings.rule == "scale":
        return [Scaled(settings.grace)]
    if settings.rule == "decay":
        return [Decayed(settings.decay, settings.cutoff)]
    if settings.rule == "gap-aware":
        return [GapAware(like)]
    if settings.rule == "delay-compensated":
        return [DelayCompensated(like, settings.compensation, settings.adaptive)]
    return []
