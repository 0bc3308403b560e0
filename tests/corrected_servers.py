"""Small servers of hybrid updates that correct stale gradients, at a rate that stays what it is."""

from __future__ import annotations

import torch

from nmt_async.quantity import Quantity
from nmt_async.sync import (
    CorrectionSettings,
    Hybrid,
    OptimizerSettings,
    ParameterServer,
    Schedule,
    build_corrections,
)


def corrected_server(
    corrections: CorrectionSettings,
    settings: OptimizerSettings,
    rate: float,
    *,
    size: int,
    workers: int = 2,
    pushes: int = 1,
    staleness: float = 0.0,
) -> ParameterServer:
    """A server with parameters of zero.

    Args:
        settings: of the optimizer.
        size: of the parameters.
        pushes: that an update sums.
        staleness: that is to be expected of a push.
    """
    buffers = torch.zeros(workers + 1, size)
    schedule = Schedule(rate, Quantity(0, "updates"), "none")
    built = build_corrections(corrections, settings, buffers[0], workers, staleness)
    return ParameterServer(buffers, Hybrid(pushes), schedule, settings, corrections=built)
