"""What tests do to a run's worker processes, and what must hold of the run whatever they did."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from training_runs import (
    Witness,
    assert_each_batch_counted,
    children_named,
    replayed,
    saved_state,
)


def pid_of(worker: int) -> int | None:
    """The process id of this process's worker, None when it has just ended."""
    return next((child.pid for child in children_named(f"worker {worker}")), None)


def send(worker: int, number: signal.Signals) -> int | None:
    """Sends a worker a signal; its process id, None if it had just ended."""
    pid = pid_of(worker)
    if pid is not None:
        os.kill(pid, number)
    return pid


def assert_whole(run: Path, data: Path, epochs: int) -> None:
    """Each batch of the first epochs is applied once or set aside, and the parameters are those of the journal."""
    assert_each_batch_counted(run, data, epochs)
    assert torch.equal(replayed(run, data), saved_state(run)["parameters"])


def deaths(witness: Witness) -> list[str]:
    """What was said of workers that were replaced."""
    return [warning for warning in witness.warnings if "a new one takes its place" in warning]


def silences(witness: Witness, worker: int) -> list[str]:
    """What was said of a worker's silence."""
    return [warning for warning in witness.warnings if f"nothing has been heard of worker {worker} " in warning]
