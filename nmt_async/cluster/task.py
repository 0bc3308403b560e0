"""What a worker is given and what it returns, whatever kind of cluster it is in, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nmt_async.text.plan import BatchId


@dataclass(frozen=True)
class Task:
    """One batch to compute.

    Attributes:
        batch: its name.
        parts: (sentences,) indexes into the token store, of each part that the worker computes by itself.
        buffer: the ring's buffer that holds the parameters to compute on.
        rate: the run's learning rate.
        residual: the row that holds what earlier pushes of the worker left behind, where they do.
        number: counts the tasks of all workers from 1, where a worker may be told to leave one.
    """

    batch: BatchId
    parts: tuple[np.ndarray, ...]
    buffer: int
    rate: float = 0.0
    residual: int = 0
    number: int = 0


@dataclass(frozen=True)
class Computed:
    """What a worker tells of a gradient that lies in its slot.

    Attributes:
        loss: training loss summed over target tokens, in nats.
        tokens, source_tokens: of the batch.
        gradient_norm: Euclidean norm of the gradient, with the worker's residual; not finite if any element is not.
        pieces: in which it was computed: one for each part, and more where memory was short.
        seconds: spent computing.
        waited: seconds between the worker's previous push and this task.
        reading: seconds of those spent computing in which it read the batch's sentences.
        most: padded tokens that the worker computes at once, found when memory failed; 0: no limit is known.
        entries: numbers that cross in the push; 0 where all do.
        bytes: of the push.
    """

    loss: float
    tokens: int
    source_tokens: int
    gradient_norm: float
    pieces: int = 1
    seconds: float = 0.0
    waited: float = 0.0
    reading: float = 0.0
    most: int = 0
    entries: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Handled:
    """One push. Moments are seconds of the cluster's clock, as the server sees them.

    Attributes:
        worker: who computed it.
        computed: what it told, with its own seconds of computing and waiting.
        dealt: when the server gave the task out.
        heard: when the server began to take the push in.
        done: when it had done so, the update included if there was one.
        updated: the push completed an update.
        updating: seconds of `done` - `heard` in which the update was made, 0 without one.
    """

    worker: int
    computed: Computed
    dealt: float
    heard: float
    done: float
    updated: bool
    updating: float = 0.0
