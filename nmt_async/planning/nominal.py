"""Gradients that only say how large they would be: what a simulation of time needs of a model and of its data."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from nmt_async.cluster.task import Computed, Task
from nmt_async.text.plan import BatchPlan


class NominalGradients:
    """One number each, that stand for gradients of a real size.

    Args:
        plan: of the batches; its lengths say how many tokens a task has.
        sent: numbers that a pull and a push would bring over the link.
    """

    size = 1

    def __init__(self, plan: BatchPlan, sent: int) -> None:
        self.sent = sent
        self._source, self._target = (_by_index(plan, np.asarray(lengths))
                                      for lengths in (plan.source_lengths, plan.target_lengths))  # fmt: skip

    def compute(self, parameters: Tensor, gradient: Tensor, task: Task) -> Computed:  # noqa: ARG002
        """As in `nmt_async.cluster.simulated.Gradients`; what stands in ``gradient`` stays."""
        target = sum(int(self._target[part].sum()) for part in task.parts)
        source = sum(int(self._source[part].sum()) for part in task.parts)
        return Computed(0.0, target, source, 0.0, len(task.parts))


def _by_index(plan: BatchPlan, lengths: np.ndarray) -> np.ndarray:
    """Lengths at the indexes by which the plan's batches name their sentences."""
    if plan.indexes is None:
        return lengths
    at = np.zeros(int(plan.indexes.max()) + 1, dtype=lengths.dtype)
    at[plan.indexes] = lengths
    return at


def even_plan(tokens: int, batches: int, parts: int = 1) -> BatchPlan:
    """A plan whose batches are all of ``parts`` times ``tokens`` target tokens; an epoch holds so many of them."""
    lengths = np.full(batches * parts, tokens, dtype=np.int64)
    return BatchPlan(lengths, lengths, tokens, seed=1, parts=parts)
