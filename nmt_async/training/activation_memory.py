"""What a worker keeps in memory between the forward and the backward pass, counted without computing a whole batch.

All that autograd saves grows by the same number of bytes with each sentence pair of the same lengths. So two forward
passes of a few pairs that are as long as those of a batch tell how much the whole batch needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nmt_async.model.build import build_unfilled
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.kernels import TOKENS_AT_ONCE, Arithmetic, compute_with
from nmt_async.model.loss import training_loss
from nmt_async.model.translation_model import TrainableModel
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchRoom, EpochPlan
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


def activation_bytes(model: nn.Module, arithmetic: Arithmetic, rows: int, lengths: tuple[int, int]) -> int:
    """About how many bytes a batch takes at the end of the forward pass, parameters not counted.

    Args:
        model: on the CPU, ready for training; what it computes with is changed.
        rows: sentence pairs of the batch.
        lengths: of the longest source and the longest target, in subwords.
    """
    compute_with(model, arithmetic)
    one, each = _one_and_each_more(model, arithmetic, lengths)
    vocabulary = len(cast(TrainableModel, model).output_bias)
    at_once = min(TOKENS_AT_ONCE, rows * lengths[1]) if arithmetic.fused else rows * lengths[1]
    return one + each * (rows - 1) + 4 * at_once * vocabulary  # the gradient of the logits


LENGTHS = ((8, 8), (16, 8), (8, 16), (16, 16), (32, 8), (8, 32))
"""Of source and target, from whose pairs the six numbers of `BatchRoom` follow."""


@lru_cache(maxsize=4)
def batch_room(configuration: ModelConfiguration, arithmetic: Arithmetic, most: int) -> BatchRoom | None:
    """How many pairs of which lengths have room in ``most`` bytes; None where not even a pair of short ones has.

    It depends on the model's sizes and the arithmetic alone, so it is the same wherever it is computed.
    """
    model = build_unfilled(configuration).train()
    compute_with(model, arithmetic)
    counted = [_one_and_each_more(model, arithmetic, lengths) for lengths in LENGTHS]
    found = [each for _, each in counted]
    terms = np.array([[1, s, t, s * s, s * t, t * t] for s, t in LENGTHS], np.float64)
    of_pair = [round(value) for value in np.linalg.solve(terms, np.array(found, np.float64))]
    vocabulary = configuration.target_vocabulary
    one, each = counted[0]
    most -= one - each  # what a batch takes whatever its pairs, as the output matrix' gradient where the loss makes it
    if arithmetic.fused:
        most -= 4 * TOKENS_AT_ONCE * vocabulary
    else:
        of_pair[2] += 4 * vocabulary  # of each target token
    any_pair, s, t, ss, st, tt = of_pair
    room = BatchRoom(most, (any_pair, s, t, ss, st, tt))
    short = np.array([LENGTHS[0][0]])
    return room if int(room.bytes(short, short)[0]) <= most else None


def _one_and_each_more(model: nn.Module, arithmetic: Arithmetic, lengths: tuple[int, int]) -> tuple[int, int]:
    """Bytes of what autograd keeps of one pair of these lengths, and of each more of them."""
    one, two = (_saved(model, arithmetic, rows, lengths) for rows in (1, 2))
    return one, two - one


def _saved(model: nn.Module, arithmetic: Arithmetic, rows: int, lengths: tuple[int, int]) -> int:
    """Bytes of what autograd keeps of so many pairs."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor
        return tensor

    source, target = (torch.full((rows, length), 1) for length in lengths)
    batch = Batch(source, torch.full((rows,), lengths[0]), target, torch.full((rows,), lengths[1]))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = training_loss(model, batch, 0.1, arithmetic)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss  # until here it holds them all, so that no two had the same place
    return total


def longest_of(batches: Iterable[np.ndarray], data: ParallelStore) -> list[tuple[int, tuple[int, int]]]:
    """Of each batch, given by its sentences, the rows and the longest source and target."""
    found = []
    for batch in batches:
        source, target = (np.asarray(side.lengths)[batch] for side in (data.source, data.target))
        found.append((len(batch), (int(source.max()), int(target.max()))))
    return found
