"""The best continuations of a beam, without sorting the whole vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
"""Subwords that are first judged by the best among them: sorting the blocks' maxima is far cheaper than sorting all."""


def best_continuations(log_probabilities: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best continuations of each sentence's hypotheses, best first.

    The best ones lie in the blocks with the highest maxima, so only those blocks are looked into.

    Args:
        log_probabilities: (sentences, beam, vocabulary), of the next subword; minus infinity where it is forbidden.
        scores: (sentences, beam), the hypotheses' summed log-probabilities.

    Returns:
        Summed log-probabilities, the hypotheses continued and the subwords chosen, each (sentences, count).
    """
    sentences, beam, vocabulary = log_probabilities.shape
    blocks = vocabulary // BLOCK
    if beam * blocks <= count:
        values, index = (log_probabilities + scores[:, :, None]).view(sentences, -1).topk(count)
        return values, index // vocabulary, index % vocabulary
    blocked = log_probabilities[:, :, : blocks * BLOCK].view(sentences, beam, blocks, BLOCK)
    maxima = (blocked.amax(dim=3) + scores[:, :, None]).view(sentences, -1)
    chosen = maxima.topk(count, sorted=False).indices
    parents, block = chosen // blocks, chosen % blocks
    rows = torch.arange(sentences, device=scores.device)[:, None]
    inside = (blocked[rows, parents, block] + scores.gather(1, parents)[:, :, None]).view(sentences, -1)
    rest = vocabulary - blocks * BLOCK
    tail = (log_probabilities[:, :, blocks * BLOCK :] + scores[:, :, None]).view(sentences, -1)
    values, index = torch.cat([inside, tail], dim=1).topk(count)
    where = index.clamp(max=count * BLOCK - 1)
    parent = parents.gather(1, where // BLOCK)
    subword = block.gather(1, where // BLOCK) * BLOCK + where % BLOCK
    if rest:
        in_tail = index >= count * BLOCK
        beyond = (index - count * BLOCK).clamp(min=0)
        parent = torch.where(in_tail, beyond // rest, parent)
        subword = torch.where(in_tail, blocks * BLOCK + beyond % rest, subword)
    return values, parent, subword
