"""With what each start of a run computed: threads, schedule, and the machine that a replay must be on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker
from nmt_async.devices import devices_named
from nmt_async.errors import UserError
from nmt_async.reading import as_dataclass
from nmt_async.sync.compression.message import Room
from nmt_async.sync.schedule import Schedule
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId
from nmt_async.training.journal_file import JOURNAL, SITTINGS, Sitting, environment, read_sittings
from nmt_async.training.options import TrainOptions, stop_quantity


class SittingWorker:
    """A worker that computes as a sitting's did, whatever the rest of the process does.

    Args:
        worker: which others may have, too.
    """

    def __init__(self, worker: Worker, sitting: Sitting) -> None:
        self.worker = worker
        self.sitting = sitting
        self.form = worker.form

    def compute(
        self,
        parameters: Tensor,
        gradient: Room,
        parts: Sequence[Batch],
        key: BatchId,
        pieces: int = 1,
        rate: float = 0.0,
    ) -> Computed:
        """As `Worker.compute`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.sitting.threads)
        self.worker.compute_with(self.sitting.arithmetic)
        try:
            return self.worker.compute(parameters, gradient, parts, key, pieces, rate)
        finally:
            torch.set_num_threads(before)


def sittings_of(run: Path, header: dict[str, Any], wanted: set[int], options: TrainOptions) -> dict[int, Sitting]:
    """The sittings of the ``wanted`` numbers. For those that version 0.1 did not note, 0, the journal's head speaks.

    Raises:
        UserError: one is not noted.
    """
    noted = {sitting.number: sitting for sitting in read_sittings(run)}
    if 0 in wanted:
        noted[0] = _sitting_of_head(run, header, options)
    missing = sorted(wanted - noted.keys())
    if missing:
        raise UserError(
            f"{run} cannot be replayed: {SITTINGS} does not say with what start {missing[0]} of the run computed."
        )
    return {number: noted[number] for number in wanted}


def _sitting_of_head(run: Path, header: dict[str, Any], options: TrainOptions) -> Sitting:
    stop = None if options.stop_after is None else str(options.stop_after)
    devices = devices_named(options.devices or "cpu", "--devices")
    known = {name: header.get(name) for name in ("threads", "machine", "cpu", "torch")}
    try:
        return as_dataclass(Sitting, {"number": 0, "devices": devices, "stop_after": stop, **known})
    except (TypeError, ValueError) as error:
        raise UserError(f"{run / JOURNAL} cannot be replayed: its first line is damaged ({error}).") from None


def check_environment(run: Path, sittings: Iterable[Sitting]) -> None:
    """Everything on which the last bits depend is here what it was there.

    Raises:
        UserError: something is not.
    """
    cannot = f"{run} cannot be replayed bit for bit"
    for sitting in sittings:
        others = [device for device in sitting.devices if device != "cpu"]
        if others:
            raise UserError(f"{cannot}: it was computed on {others[0]}, and a replay computes on the CPU.")
        here, there = environment(sitting.threads), vars(sitting)
        differ = [name for name in ("machine", "cpu", "torch") if there[name] != here[name]]
        if differ:
            said = "; ".join(f"{name} {there[name]}, here {here[name]}" for name in differ)
            raise UserError(f"{cannot} here: it was computed with {said}. Replay it where it was computed.")


def schedule_of(run: Path, options: TrainOptions, sitting: Sitting) -> Schedule:
    """The learning rate of a sitting.

    Raises:
        UserError: it had none, as where a file was changed by hand.
    """
    try:
        return options.schedule(stop_quantity(sitting.stop_after) if sitting.stop_after else None)
    except UserError as error:
        raise UserError(f"{run} cannot be replayed: its start {sitting.number} had no schedule: {error}") from None


def server_threads(options: TrainOptions, sitting: Sitting) -> int:
    """With how many the updates were computed: beside processes on the CPU the server has one."""
    return sitting.threads if options.cluster == "simulated" else 1
