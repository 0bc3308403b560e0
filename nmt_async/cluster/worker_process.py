"""A worker in a process of its own: receives tasks, computes, tells what it computed."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from nmt_async.cluster.task import Computed, Task
from nmt_async.cluster.worker import Worker
from nmt_async.model.build import build_unfilled
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.text.prepared import PreparedData

LONGEST_ERROR, LONGEST_TRACE = 500, 3000
"""Characters of an exception that are told. A pipe takes what is below 16 KiB in one piece, so never a half of it."""


@dataclass(frozen=True)
class WorkerSettings:
    """What all workers of a run are told when they start.

    Attributes:
        data: the prepared folder.
        configuration: of the model.
        seed: of the run.
        label_smoothing: of the training loss.
        threads: of each worker on the CPU.
    """

    data: Path
    configuration: ModelConfiguration
    seed: int
    label_smoothing: float
    threads: int


@dataclass(frozen=True)
class Ready:
    """The worker has loaded everything and waits for its first task."""


@dataclass(frozen=True)
class Failed:
    """The worker ends with an exception.

    Attributes:
        error: its one-line text.
        trace: the traceback, for the log.
    """

    error: str
    trace: str


def build_worker(settings: WorkerSettings, device: torch.device, most: int = 0) -> Worker:
    """A worker with a model of its own; the model's parameters mean nothing until its first task."""
    model = build_unfilled(settings.configuration).to(device)
    return Worker(model, settings.seed, settings.label_smoothing, device, most)


def run_worker(
    index: int,
    settings: WorkerSettings,
    device: str,
    ring: SharedVectors,
    slots: SharedVectors,
    most: int,
    pipe: Connection,
) -> None:
    """The body of the process of worker ``index``: it reads the ring's buffers and writes its own slot only.

    Args:
        most: padded tokens that it computes at once, as its predecessor found; 0: no limit is known.
    """
    try:
        worker = build_worker(settings, torch.device(device), most)
        data = PreparedData.open(settings.data).train
        slot = slots.tensor[index]
        pipe.send(Ready())
        idle_since = time.monotonic()
        while True:
            task: Task | None = pipe.recv()
            if task is None:
                return
            begin = time.monotonic()
            computed = worker.compute(ring.tensor[task.buffer], slot, data.batches(task.parts), task.batch)
            end = time.monotonic()
            pipe.send(replace(computed, seconds=end - begin, waited=begin - idle_since))
            idle_since = end
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except Exception as error:
        pipe.send(
            Failed(
                f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR],
                traceback.format_exc()[-LONGEST_TRACE:],
            )
        )
        raise SystemExit(1) from None


__all__ = ["Computed", "Failed", "Ready", "WorkerSettings", "build_worker", "run_worker"]
