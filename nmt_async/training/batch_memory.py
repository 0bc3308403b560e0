"""``--batch-memory auto``: how much memory each worker's device has free for what it computes of a batch.

With the workers that are found (`nmt_async.training.worker_count`), all that a machine decides before a run begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch

from nmt_async.checkpoints.model_folder import layout_of
from nmt_async.errors import UserError
from nmt_async.free_memory import available_memory
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import FITTED, TrainOptions
from nmt_async.training.parts import model_configuration
from nmt_async.training.run_folder import CONFIG, read_options
from nmt_async.training.stated_memory import VECTOR_BYTES, bytes_by_device, vectors_of
from nmt_async.training.worker_count import with_measured_workers

SHARE = 0.7
"""Of what is free, which batches may take: what is for a moment is not counted, and others want memory, too."""

PROCESS = 150 << 20
"""Bytes of a process besides: what it has of its own of Python and torch."""


def without_auto(options: TrainOptions, data: PreparedData, say: Callable[[str], None]) -> TrainOptions:
    """The options with numbers that fit this machine, wherever they ask for that.

    Args:
        say: takes a sentence about each that was found.

    Raises:
        UserError: one cannot be found. RunFailure: a process that was measured ended.
    """
    return with_fitted_batches(with_measured_workers(options, data, say), data, say)


def with_fitted_batches(options: TrainOptions, data: PreparedData, say: Callable[[str], None]) -> TrainOptions:
    """The options with as much memory for a batch as there is, where they ask for that; else as they are.

    A run that is there goes on with what it found, since its batches are to stay as they are.

    Args:
        say: takes a sentence about what was found.

    Raises:
        UserError: there is none.
    """
    if options.batch_memory is not FITTED:
        return options
    if (options.out / CONFIG).exists() and (before := read_options(options.out).batch_memory) is not None:
        return replace(options, batch_memory=before)
    layout = layout_of(model_configuration(options, data))
    need, devices = vectors_of(options, layout, data.valid is not None), options.device_list()
    vector = VECTOR_BYTES * layout.size
    if devices[0] == "cpu":
        computing = 1 if options.cluster == "simulated" else len(devices)
        shared = need.between_processes + need.server + need.checkpoint + computing * need.gradients
        free = (available_memory() - round(shared * vector) - (computing + 1) * PROCESS) / computing
    else:
        owned = bytes_by_device(need, options, layout)
        free = min(
            (torch.cuda.mem_get_info(torch.device(device))[0] - owned.get(device, 0)) / count - need.gradients * vector
            for device, count in Counter(devices).items()
        )
    each = int(SHARE * free) >> 20
    if each < 1:
        raise UserError(f"--batch-memory {FITTED}: nothing is left beside the parameters; choose a smaller model.")
    say(f"--batch-memory {FITTED}: {each:,} MiB for the batches of each worker.")
    return replace(options, batch_memory=each)
