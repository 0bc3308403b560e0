"""Kinds of pushes, and what a worker makes of some batches with each, wherever the vectors lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apart import counted, on_cpu
from torch import Tensor

from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker
from nmt_async.sync.compression.error_feedback import Residuals
from nmt_async.sync.compression.message import Slots, dense
from nmt_async.sync.compression.settings import LocalGradients, PushSettings
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId

PUSHES = {
    "whole": PushSettings(),
    "bfloat16": PushSettings(dtype="bfloat16"),
    "dropped": PushSettings(drop=0.9),
    "ahead of itself": PushSettings(drop=0.9, local_gradients=LocalGradients(2)),
}


def pushed_by(
    worker: Worker, parameters: Tensor, like: Tensor, batches: Sequence[Batch], check: Callable[[], None]
) -> list[Tensor]:
    """What crosses of the gradient of each batch, and what stays behind of it, both on the CPU.

    Args:
        parameters: (size,), at which all of them are computed.
        like: a tensor where the slots are to lie.
        check: looks at what was counted while one batch was computed (`apart.counted`).
    """
    slots = Slots.of(worker.form, 1, like)
    rows = parameters.new_zeros(2, worker.layout.size) if worker.push.compressed else None
    residuals = None if rows is None else Residuals(rows)
    pushed = []
    for number, batch in enumerate(batches):
        counted.clear()
        room = slots.room(0, rows, 0 if residuals is None else residuals.row(0))
        computed: Computed = worker.compute(parameters, room, [batch], BatchId(1, number), rate=0.1)
        check()
        pushed.append(on_cpu(dense(slots.message(0, computed.entries))).to("cpu", copy=True))
        if residuals is not None:
            residuals.accepted(0)
            pushed.append(on_cpu(residuals.before(0)).to("cpu", copy=True))
    return pushed
