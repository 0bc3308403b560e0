"""Gradient dropping: only the numbers of largest magnitude cross (Aji & Heafield 2017, arXiv 1704.05021).

A number crosses if its magnitude is at least the threshold and above 0. The threshold is the magnitude that a share
``drop`` of the numbers stays below. As in the work, it is estimated from a sample of 0.1 % of them, since sorting all
would take longer than it saves; of small models the sample is larger, since ten numbers say nothing. The sample is
drawn from a generator of its own, so that the same gradient has the same numbers whenever it is computed.

One threshold for the whole gradient suits models with layer normalisation, whose gradients are alike in scale; without
it, a matrix with small gradients would hardly ever send one, and each matrix needs its own (the work's section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SAMPLE, LEAST_SAMPLE = 0.001, 1000
"""Share of the numbers, and how many at least, from which the threshold is estimated."""

CHUNK = 1 << 20
"""Numbers that are compared at once, so that little memory is needed beside them."""


def largest(
    vector: Tensor, drop: float, most: int, generator: torch.Generator, blocks: Sequence[tuple[int, int]] = ()
) -> Tensor:
    """The places of the largest numbers, ascending, (entries,), int64.

    Args:
        vector: (size,).
        drop: the share of the numbers that are not among them, about.
        most: how many there may be; if more reach the threshold, the largest of these.
        generator: for the sample.
        blocks: begin and end of each stretch with a threshold of its own; none: the whole is one.
    """
    picked = []
    for begin, end in blocks or ((0, len(vector)),):
        limit = threshold(vector[begin:end], drop, generator)
        for start in range(begin, end, CHUNK):
            magnitude = vector[start : min(end, start + CHUNK)].abs()
            picked.append(((magnitude >= limit) & (magnitude > 0)).nonzero().flatten() + start)
    places = torch.cat(picked)
    if len(places) > most:
        kept = torch.topk(vector[places].abs(), most, sorted=False).indices
        places = places[kept].sort().values
    return places


def threshold(part: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """The magnitude that about a share ``drop`` of the numbers in ``part`` (size,) stays below; zero-dimensional."""
    count = min(len(part), max(LEAST_SAMPLE, math.ceil(SAMPLE * len(part))))
    sample = part
    if count < len(part):
        places = torch.randint(len(part), (count,), generator=generator)
        sample = part[places.to(part.device)]
    crossing = max(1, round((1.0 - drop) * count))
    return torch.topk(sample.abs(), crossing).values[-1]
