"""A run's journal, replayed on one process: whether it leads to the parameters of the run's checkpoint, bit for bit.

The gradients are computed with as many threads as each sitting of the run had, the updates with as many as its server
had: sums of floats depend on how they are shared out. What else they depend on, the machine and torch, must be here
what it was there.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages, read_state
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.task import Computed
from nmt_async.cluster.worker import Worker, out_of_memory
from nmt_async.devices import devices_named
from nmt_async.errors import RunFailure, UserError
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.progress import Progress
from nmt_async.reading import as_dataclass, read_object
from nmt_async.sync.compression.error_feedback import NAME
from nmt_async.sync.compression.message import Room
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.sync.schedule import Schedule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.batch import Batch
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.initial_model import first_model
from nmt_async.training.journal_file import JOURNAL, SITTINGS, Sitting, environment, read_journal, read_sittings
from nmt_async.training.options import TrainOptions, stop_quantity
from nmt_async.training.parts import (
    buffers_needed,
    build_coordinator,
    model_configuration,
    residual_rows,
    training_plan,
)
from nmt_async.training.resuming import rule_of, with_workers
from nmt_async.training.run_folder import CONFIG, DATA, read_options


@dataclass(frozen=True)
class Replayed:
    """What a replay came to.

    Attributes:
        update: to which it went.
        checkpoint: the folder that it was compared with.
        compared: the vectors that were compared, by their names.
        different: of these, those that differ, and by how much at most.
    """

    update: int
    checkpoint: Path
    compared: tuple[str, ...]
    different: dict[str, float]


def replay(run: Path, until: int | None, moved: Path | None, progress: Progress) -> Replayed:
    """Replays the journal of the run in the folder ``run``.

    Args:
        until: the update to which to go; None: that of the newest checkpoint.
        moved: where the prepared folder is, if it is not where it was.

    Raises:
        UserError: there is no such run, or nothing to compare with, or it cannot be replayed here.
        RunFailure: the journal cannot have happened.
    """
    begun = _options(run)
    data = _data(run, moved)
    header, events = read_journal(run / JOURNAL)
    try:
        standing = effective(events)
    except ValueError as error:
        raise UserError(f"{run / JOURNAL} cannot be replayed: {error}.") from None
    _check_alone(run, standing)
    update, checkpoint = _compared_with(run, until, standing)
    stored = _stored(checkpoint)
    standing = _until(update, standing)
    first = _first_sitting(run, standing, events)
    sittings = _sittings(run, header, {first, *_later_sittings(standing)}, begun)
    _check_environment(run, sittings.values())
    schedules = {number: _schedule(run, begun, sitting) for number, sitting in sittings.items()}
    begun = dataclasses.replace(begun, devices="cpu")  # another sitting may have had others

    configuration = model_configuration(begun, data)
    model = first_model(begun, configuration, data)
    layout = FlatLayout(model)
    initial = layout.gather(model)
    plan, push = training_plan(begun, data), begun.push_settings()

    def build(record: Callable[[Event], None], workers: int) -> Coordinator:
        now = with_workers(begun, workers)
        buffers = torch.zeros(buffers_needed(now.corrections(), workers, simulated=True), layout.size)
        buffers[0].copy_(initial)
        residuals = residual_rows(push, workers, layout.size)
        return build_coordinator(now, plan, layout, buffers, record, lambda _: None, endless=True, residuals=residuals)

    def begin_sitting(number: int) -> None:
        """From here on threads and schedule are those of another sitting."""
        worker.threads = sittings[number].threads
        torch.set_num_threads(_server_threads(begun, sittings[number]))
        replaying.coordinator.server.schedule = schedules[number]

    worker = ThreadedWorker(
        Worker(build_model(configuration), begun.seed, begun.label_smoothing, torch.device("cpu"), push=push), 1
    )
    before = torch.get_num_threads()
    try:
        replaying = Replay(build, worker, data.train, header["workers"], begin_sitting)
        begin_sitting(first)
        last = _last_workers(header, standing)
        in_the_end = replaying.coordinator if last == header["workers"] else build(lambda _: None, last)
        expected = _vectors_like(stored, in_the_end.server)
        _check_comparable({name: vector for name, vector in expected.items() if NAME not in name}, stored, checkpoint)
        del expected, in_the_end
        with progress.stage("replay", update, "updates") as step:
            replaying.run(standing, lambda version: step(version, version))
        found = _differences(_vectors_like(stored, replaying.coordinator.server), stored)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunFailure(f"{run} cannot be replayed here: memory does not hold a gradient of each worker.") from None
    finally:
        torch.set_num_threads(before)
    return Replayed(update, checkpoint, tuple(found), {name: most for name, most in found.items() if most})


def _check_alone(run: Path, events: Iterable[Event]) -> None:
    """Raises UserError where other machines have computed a part of the run."""
    most = max((event.batch[0] for event in events if event.kind is Kind.RESUMED), default=0)
    if most:
        raise UserError(
            f"{run} was shared by {most} machines, each of which has a part of the record; a replay is for runs that "
            f"one machine has computed."
        )


class ThreadedWorker:
    """A worker that computes with so many threads, whatever the rest of the process does."""

    def __init__(self, worker: Worker, threads: int) -> None:
        self.worker = worker
        self.threads = threads
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
        torch.set_num_threads(self.threads)
        try:
            return self.worker.compute(parameters, gradient, parts, key, pieces, rate)
        finally:
            torch.set_num_threads(before)


def _options(run: Path) -> TrainOptions:
    try:
        options = read_options(run)
        rule_of(options)
        return options
    except UserError as error:
        problem = str(error).removeprefix("--out ").partition("; the run cannot be resumed")[0]
        raise UserError(f"{problem}; give the folder of a run (train --out).") from None


def _data(run: Path, moved: Path | None) -> PreparedData:
    """The data that the run was trained on."""
    try:
        noted = read_object(run / DATA)
        folder, fingerprint = Path(noted["folder"]), noted["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(f"{run / DATA} cannot be read: nobody knows on which data the run was trained.") from None
    if moved is None and not os.path.isdir(folder):
        raise UserError(f"the data of {run} are not in {str(folder)[:300]} any more; say with --data where they are.")
    data = PreparedData.open(moved or folder)
    if data.fingerprint != fingerprint:
        raise UserError(f"{data.folder} holds other data than those of {run}; give its own with --data.")
    return data


def _compared_with(run: Path, until: int | None, events: Sequence[Event]) -> tuple[int, Path]:
    """To which update to go, and the checkpoint of it."""
    made = max((event.version for event in events if event.kind is Kind.UPDATED), default=0)
    states = folders_by_update(run / "checkpoints", "step")
    kept = {**folders_by_update(run / "checkpoints", "best"), **states}
    kept = {update: folder for update, folder in kept.items() if update <= made}
    there = ", ".join(f"{update:,}" for update in sorted(kept))
    if not kept:
        raise UserError(f"{run} has no checkpoint to compare with; let the run save one first (--save-freq).")
    if until is None:
        until = max(states.keys() & kept, default=0) or max(kept)
    if until not in kept:
        raise UserError(f"--until {until}: {run} keeps no checkpoint of that update; choose from {there}.")
    folder = kept[until]
    if until in states:
        found = checkpoint_damages(folder)
        if found:
            raise UserError(f"{folder}: {'; '.join(found)}; choose another checkpoint with --until, from {there}.")
    return until, folder


def _until(update: int, events: Sequence[Event]) -> list[Event]:
    """The events up to the update, and the workers that it made restart."""
    ends = (place for place, event in enumerate(events) if event.kind is Kind.UPDATED and event.version == update)
    end = next(ends) + 1
    while end < len(events) and events[end].kind is Kind.RESTARTED:
        end += 1
    return list(events[:end])


def _first_sitting(run: Path, standing: Sequence[Event], events: Iterable[Event]) -> int:
    """The number of the sitting in which the journal begins; 0 for one of version 0.1, which noted none.

    Args:
        standing: the events that are replayed.
        events: all events of the journal, also those that a resume made void.
    """
    if standing[0].kind is Kind.RESUMED:
        return standing[0].tokens
    return 1 if read_sittings(run) and 1 not in _later_sittings(events) else 0


def _later_sittings(events: Iterable[Event]) -> set[int]:
    """The numbers of the sittings that went on; 0 for those of version 0.1."""
    return {event.tokens for event in events if event.kind is Kind.RESUMED}


def _last_workers(header: Mapping[str, Any], standing: Sequence[Event]) -> int:
    """How many workers the last of the sittings had that are replayed."""
    told = [event.worker for event in standing if event.kind is Kind.RESUMED and event.worker]
    return int(told[-1] if told else header["workers"])


def _sittings(run: Path, header: dict[str, Any], wanted: set[int], options: TrainOptions) -> dict[int, Sitting]:
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


def _check_environment(run: Path, sittings: Iterable[Sitting]) -> None:
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


def _schedule(run: Path, options: TrainOptions, sitting: Sitting) -> Schedule:
    """The learning rate of a sitting.

    Raises:
        UserError: it had none, as where a file was changed by hand.
    """
    try:
        return options.schedule(stop_quantity(sitting.stop_after) if sitting.stop_after else None)
    except UserError as error:
        raise UserError(f"{run} cannot be replayed: its start {sitting.number} had no schedule: {error}") from None


def _server_threads(options: TrainOptions, sitting: Sitting) -> int:
    """With how many the updates were computed: beside processes on the CPU the server has one."""
    return sitting.threads if options.cluster == "simulated" else 1


MODEL = "the model"


def _stored(checkpoint: Path) -> dict[str, Tensor]:
    """The vectors (size,) in a checkpoint; of one that has a model only, those of the model."""
    if checkpoint.name.startswith("step-"):
        values, tensors = read_state(checkpoint)
        buffer = values["coordinator"]["server"]["buffer"]
        if buffer["summed"] or buffer.get("held"):  # pushes of the next update have changed what is left behind
            return {name: tensor for name, tensor in tensors.items() if not name.startswith(NAME)}
        return tensors
    model = load_model(checkpoint).model
    return {MODEL: FlatLayout(model).gather(model)}


def _vectors_like(stored: Mapping[str, Tensor], server: ParameterServer) -> dict[str, Tensor]:
    """The server's vectors that belong beside ``stored``."""
    if MODEL not in stored:
        residuals = {} if server.residuals is None else server.residuals.state()
        left = {name: vector for name, vector in residuals.items() if name in stored}
        return {**server.vectors(), **left}
    average = server.optimizer.average
    return {MODEL: server.parameters if average is None else average}


def _check_comparable(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Raises UserError where the checkpoint is of another model, or of another optimizer."""
    for name, vector in ours.items():
        if name not in stored or stored[name].shape != vector.shape:
            raise UserError(
                f"{checkpoint} has no {name} of {vector.numel():,} numbers, as {CONFIG} of the run says: one of the "
                f"two was changed; choose another checkpoint with --until."
            )


def _differences(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each vector, by how much it differs from the stored one at most; 0 if it is bit-equal."""
    return {
        name: 0.0 if torch.equal(vector, stored[name]) else max(float((vector - stored[name]).abs().max()), 1e-45)
        for name, vector in ours.items()
    }


def verdict(run: Path, found: Replayed) -> str:
    """What a replay came to, in one sentence.

    Raises:
        RunFailure: the parameters are others.
    """
    where = f"the journal of {run}, replayed to update {found.update:,}, leads to"
    if not found.different:
        names = ", ".join(found.compared)
        return f"{where} what {found.checkpoint} holds, bit for bit ({names})."
    most = "; ".join(f"{name} differ by up to {difference:.3g}" for name, difference in found.different.items())
    raise RunFailure(f"{where} something else than {found.checkpoint} holds: {most}.")
