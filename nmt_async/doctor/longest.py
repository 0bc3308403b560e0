"""Which batches need the most memory."""

from __future__ import annotations

import numpy as np

from nmt_async.text.plan import EpochPlan
from nmt_async.text.prepared import ParallelStore


def longest_batches(plan: EpochPlan, data: ParallelStore) -> list[np.ndarray]:
    """The sentences of the batch with the most tokens, padding counted, and of that whose attention is the largest.

    One array of sentence indexes where that is the same batch, else two. A batch that workers split into parts counts
    part by part, since only one part is computed at a time.
    """
    begins = plan.bounds[:-1]
    rows = np.diff(plan.bounds).astype(np.int64)
    source, target = (
        np.maximum.reduceat(np.asarray(side.lengths, np.int64)[plan.order], begins)
        for side in (data.source, data.target)
    )
    tokens = rows * (source + target)
    attention = rows * (source * source + source * target + target * target)
    chosen = dict.fromkeys((int(tokens.argmax()), int(attention.argmax())))
    return [plan.order[plan.bounds[part] : plan.bounds[part + 1]] for part in chosen]
