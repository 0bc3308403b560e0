"""Which device owns which part of all vectors, where workers compute on several GPUs.

A part is a stretch of whole parameters, so that a matrix is on one device, which can multiply it. Parts are as even as
that allows: of all ways to cut, that with the least sum of squares of the parts' sizes. So the largest embedding is the
least that a part can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nmt_async.model.parameters import FlatLayout
from nmt_async.process.sharded_tensor import Shard


def owners(devices: Sequence[str]) -> list[torch.device]:
    """The devices that own vectors: all CUDA devices of the workers where they are several, else the first worker's.

    Args:
        devices: of the workers.
    """
    cuda = [device for device in dict.fromkeys(devices) if torch.device(device).type == "cuda"]
    return [torch.device(device) for device in (cuda if len(cuda) > 1 else devices[:1])]


def shards_of(layout: FlatLayout, devices: Sequence[torch.device]) -> list[Shard]:
    """The parts of a vector, in its order; fewer than devices where there are fewer parameters.

    Args:
        devices: that own one each.
    """
    bounds = [*(place.begin for place in layout.places), layout.size]
    ends = even_ends(bounds, min(len(devices), len(layout.places)))
    begins = [0, *ends[:-1]]
    return [Shard(*each) for each in zip(devices, begins, ends, strict=False)]


def even_ends(bounds: Sequence[int], parts: int) -> list[int]:
    """Where ``parts`` of ``bounds[0]`` to ``bounds[-1]`` end, each with a bound in between, as even as can be.

    Args:
        bounds: where may be cut, ascending; more than ``parts``.
    """
    places = np.asarray(bounds, dtype=np.float64)
    least = (places - places[0]) ** 2  # of one part that ends at each bound
    least[0] = np.inf  # no part is empty
    best: list[list[int]] = []
    for _ in range(1, parts):
        candidates = [least[:end] + (places[end] - places[:end]) ** 2 for end in range(1, len(places))]
        best.append([0, *(int(candidate.argmin()) for candidate in candidates)])
        least = np.array([np.inf, *(candidate.min() for candidate in candidates)])
    ends = [len(places) - 1]
    for before in reversed(best):
        ends.insert(0, before[ends[0]])
    return [bounds[end] for end in ends]


def sentence(shards: Sequence[Shard]) -> str:
    """How vectors are cut, for people; empty where they are not."""
    if len(shards) < 2:
        return ""
    parts = [f"{shard.size / shards[-1].end:.0%} on {shard.device}" for shard in shards]
    return f"parameters, pushes and optimizer lie in parts on several devices: {', '.join(parts)}."
