"""A run that machines have shared, replayed on one process from the journals of all of them.

The folders of all machines lie under that of the first one, as on a disk that they share, or copied together. Each
start of the run that led to the checkpoint is replayed with the machines that it had; the next one takes up the state
of the machine whose state it took up. What came before the first of these starts, one machine has computed by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import read_values
from nmt_async.cluster.joint_replay import JointReplay, MachineReplay, Recorded, State, gloo_sum
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.errors import UserError, shown
from nmt_async.options import flag_of
from nmt_async.reading import read_object
from nmt_async.sync.between.lineage import Start, start_of, starts_of
from nmt_async.sync.between.outer import summed
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.training.journal_file import JOURNAL, SITTINGS, Sitting, read_journal, read_sittings
from nmt_async.training.options import TrainOptions, stop_quantity
from nmt_async.training.parts import Shared
from nmt_async.training.replay_alone import AloneReplay, ReplayParts, events_until, options_to_replay
from nmt_async.training.replay_comparison import MODEL
from nmt_async.training.replay_sittings import check_environment, server_threads
from nmt_async.training.resuming import with_workers
from nmt_async.training.run_folder import CONFIG, DATA, LOCAL, as_it_was_begun
from nmt_async.training.sharing import NO_VALUES, OWN, folder_of


class Saved(NamedTuple):
    """A state that a machine has saved.

    Attributes:
        version: of its parameters.
        machine: which of them saved it, by rank.
        events: of its journal, resumes not counted, when it did; None if nobody knows.
    """

    version: int
    machine: int
    events: int | None


class MachineRecord:
    """What the folder of a machine has recorded.

    Args:
        folder: of the machine.
        options: with which the run was begun on it.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        self.folder = folder
        self.options = options
        self.journal = folder / JOURNAL
        self.header, events = read_journal(self.journal)
        try:
            effective(events)
        except ValueError as error:
            raise UserError(f"{self.journal} cannot be replayed: {error}.") from None
        self._sittings = {sitting.number: sitting for sitting in read_sittings(folder)}
        self.alone: list[Event] = []
        self._starts: dict[int, list[Event]] = {}
        of_start = self.alone
        for event in events:
            if start_of(event):
                of_start = self._starts.setdefault(event.tokens, [])
            of_start.append(event)

    def start(self, start: Start) -> list[Event]:
        """The events of a start, those too that became void later.

        Raises:
            UserError: it does not have that start.
        """
        events = self._starts.get(start.number, [])
        if not events or events[0].version != start.version or not events[0].worker:
            raise UserError(
                f"{self.journal} does not fit: the run went on from update {start.version:,} in its start "
                f"{start.number}, and this journal does not have that; a replay needs the folders of all machines as "
                f"the run left them."
            )
        return events

    def sitting(self, number: int) -> Sitting:
        """With what it computed in the start of that number.

        Raises:
            UserError: that is not noted.
        """
        if number not in self._sittings:
            raise UserError(
                f"{self.folder} cannot be replayed: {SITTINGS} does not say with what start {number} of the run "
                f"computed."
            )
        return self._sittings[number]


class SharedReplay:
    """A replay of the journals of all machines.

    Args:
        run: the folder of the first machine.
        parts: to compute with.
        update: to which to go.
        checkpoint: of that update.

    Attributes:
        most_machines: that shared a start.

    Raises:
        UserError: it cannot be replayed here.
    """

    def __init__(self, run: Path, parts: ReplayParts, update: int, checkpoint: Path) -> None:
        self.run_folder = run
        self.parts = parts
        starts, last = _led_to(run, update, checkpoint)
        first = MachineRecord(run, as_it_was_begun(run))
        self.most_machines = max(first.start(start)[0].batch[0] for start in starts)
        others = (machine_record(run, rank, first.options) for rank in range(1, self.most_machines))
        self.records = [first, *others]
        noted = [first.sitting(start.number).shared for start in starts]
        went_on = [
            Saved(start.version, each.machine if each else 0, each.events if each else None)
            for start, each in zip(starts, noted, strict=True)
        ]
        self._alone = self._what_came_before(went_on[0]) if starts[0].version else None
        saved = [*went_on[1:], last]
        self._starts = [self._shared_start(start, state) for start, state in zip(starts, saved, strict=True)]
        self._machine: MachineCoordinator | None = None

    def _what_came_before(self, saved: Saved) -> AloneReplay:
        """What one machine has computed by itself before the run was shared."""
        record = self.records[0]
        events = effective(record.alone)
        standing = events_until(saved.version, events) if saved.events is None else _counted(events, saved.events)
        if not any(event.kind is Kind.UPDATED and event.version == saved.version for event in standing):
            raise UserError(f"{record.journal} ends before update {saved.version:,}, from which the run was shared.")
        return AloneReplay(self.run_folder, self.parts, record.header, standing, record.alone)

    def _shared_start(self, start: Start, saved: Saved) -> SharedStartReplay:
        machines = self.records[0].start(start)[0].batch[0]
        if saved.machine >= machines:
            raise UserError(f"{self.run_folder}: there was no machine {saved.machine} in start {start.number}.")
        return SharedStartReplay(self.run_folder, self.parts, self.records[:machines], start, saved)

    def run(self, tell: Callable[[int], None]) -> None:
        """Lets all happen again.

        Args:
            tell: takes the version of the parameters, now and then.

        Raises:
            RunFailure: the journals cannot have happened.
            UserError: one of them ends too early.
        """
        state: State | None = None
        if self._alone is not None:
            self._alone.run(tell)
            state, self._alone = self._alone.coordinator.state(), None
        for start in self._starts:
            self._machine = start.replayed(state, tell)
            state = self._machine.state()

    def vectors_like(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The vectors that belong beside those of a checkpoint."""
        machine = self._machine
        assert machine is not None
        average = machine.server.optimizer.average
        if MODEL in stored:
            return {MODEL: machine.parameters if average is None else average}
        tensors, outer = machine.state()[1], {} if machine.outer is None else machine.outer.tensors
        return {name: tensors[name] for name in (*machine.server.vectors(), *outer)}


def machine_record(run: Path, rank: int, first: TrainOptions) -> MachineRecord:
    """What another machine has recorded.

    Args:
        first: the options of the first one.

    Raises:
        UserError: its folder is not here, or is of another run.
    """
    folder = folder_of(run, rank)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not here: {run} was shared by several machines, and a replay needs the folders of all of "
            f"them under that of the first one; copy it there."
        )
    if not (folder / CONFIG).exists() and first.cluster == "simulated":
        return MachineRecord(folder, first)  # it has no options of its own
    options_to_replay(folder)
    options = as_it_was_begun(folder)
    for field in dataclasses.fields(TrainOptions):
        here, there = getattr(first, field.name), getattr(options, field.name)
        if field.name not in OWN and not field.metadata["changeable"] and here != there:
            raise UserError(
                f"{folder} is of another run than {run}: it has {flag_of(field)} {there}, and not {here}; a replay "
                f"needs the folders of the machines of one run."
            )
    if _data_of(folder) != _data_of(run):
        raise UserError(f"{folder} is of another run than {run}: its data are others.")
    return MachineRecord(folder, options)


def _data_of(folder: Path) -> Any:
    try:
        return read_object(folder / DATA)["fingerprint"]
    except (OSError, ValueError, LookupError):
        raise UserError(f"{folder / DATA} cannot be read: nobody knows on which data it was trained.") from None


def _led_to(run: Path, update: int, checkpoint: Path) -> tuple[list[Start], Saved]:
    """The starts of the run that led to a checkpoint, and who saved it."""
    states = folders_by_update(run / "checkpoints", "step")
    # A model that is kept as one of the best says nothing of this; a later state does.
    state = states.get(update) or next((states[later] for later in sorted(states) if later > update), None)
    if state is None:
        raise UserError(f"{checkpoint} does not say which starts of {run} led to it; choose another with --until.")
    try:
        values = read_values(state)["coordinator"]
        starts = [start for start in starts_of(values["starts"]) if start.version < update or state == checkpoint]
        machine, events = int(values.get("machine", 0)), values.get("events")
        if not starts or not (events is None or type(events) is int):
            raise ValueError("it has no starts")
    except NO_VALUES as error:
        raise UserError(f"{state} does not say which starts of {run} led to it ({shown(str(error))}).") from None
    return starts, Saved(update, machine, events) if state == checkpoint else Saved(update, 0, None)


def _counted(events: Sequence[Event], count: int) -> list[Event]:
    """So many events, resumes not counted."""
    places = [place for place, event in enumerate(events) if event.kind is not Kind.RESUMED]
    return list(events[: places[count - 1] + 1 if 0 < count <= len(places) else len(events)])


@dataclass(frozen=True)
class SharedStartReplay:
    """A replay of one start.

    Args:
        run: the folder of the first machine.
        parts: to compute with.
        records: of its machines, by rank.
        start: which one.
        saved: the state to which it led.
    """

    run: Path
    parts: ReplayParts
    records: Sequence[MachineRecord]
    start: Start
    saved: Saved

    def __post_init__(self) -> None:
        check_environment(self.run, self._sittings)
        for rank, record in enumerate(self.records):
            if record.start(self.start)[0].batch != (len(self.records), rank):
                raise UserError(
                    f"{record.journal} does not fit those of the other machines in start {self.start.number}."
                )
            self._options(rank)
            self._goal(rank)

    @property
    def _sittings(self) -> list[Sitting]:
        return [record.sitting(self.start.number) for record in self.records]

    def _options(self, rank: int) -> TrainOptions:
        """With which a machine computed then."""
        record, sitting = self.records[rank], self.records[rank].sitting(self.start.number)
        workers = record.start(self.start)[0].worker
        options = with_workers(record.options, workers, len(self.records))
        shared = {} if sitting.shared is None else sitting.shared.options
        stop = None if sitting.stop_after is None else stop_quantity(sitting.stop_after)
        try:
            if shared.keys() - {"between", *LOCAL}:
                raise TypeError(f"{next(iter(shared.keys() - {'between', *LOCAL}))} is not known")
            return dataclasses.replace(options, devices="cpu", workers=workers, stop_after=stop, **shared)
        except (TypeError, UserError) as error:
            raise UserError(
                f"{record.folder} cannot be replayed: {SITTINGS} says of start {self.start.number} what cannot be "
                f"({shown(str(error))})."
            ) from None

    def _goal(self, rank: int) -> int:
        """How many events of a machine have to happen again: those that are in the state, and led to it.

        Raises:
            UserError: there are fewer.
        """
        record = self.records[rank]
        events = record.start(self.start)
        if self.saved.version == self.start.version:
            goal = 1
        else:
            goal = _place(events, lambda event: event.kind is Kind.UPDATED and event.version == self.saved.version)
            if not goal:  # the machine was gone before it heard of the update
                goal = _place(reversed(events), lambda event: event.kind is Kind.CONTRIBUTED)
                goal = goal and len(events) + 1 - goal
        if rank == self.saved.machine and self.saved.events is not None:
            goal = max(goal, 1 + self.saved.events - events[0].stands)
        if not 0 < goal <= len(events):
            raise UserError(
                f"{record.journal} ends before update {self.saved.version:,}, to which start {self.start.number} of "
                f"the run led; without what is missing the run cannot be computed again."
            )
        return goal

    def replayed(self, state: State | None, tell: Callable[[int], None]) -> MachineCoordinator:
        """The machine whose state was saved, where it was then.

        Args:
            state: that all take up; None: they begin.
            tell: takes the version of the parameters, now and then.
        """
        torch.set_num_threads(server_threads(self.parts.options, self._sittings[0]))
        simulated = self.parts.options.cluster == "simulated"
        machines = [self._machine(rank) for rank in range(len(self.records))]
        JointReplay(machines, summed if simulated else gloo_sum).run(self.parts.initial, state, tell)
        return machines[self.saved.machine].machine

    def _machine(self, rank: int) -> MachineReplay:
        record, options = self.records[rank], self._options(rank)
        workers = tuple(each.start(self.start)[0].worker for each in self.records)
        saved = rank == self.saved.machine
        recorded = Recorded(str(record.journal), record.start(self.start), self._goal(rank), saved)
        threads = record.sitting(self.start.number).threads
        return MachineReplay(
            lambda record, count: self.parts.coordinator(options, record, count, Shared(workers, rank)),
            self.parts.worker(threads), self.parts.data.train, recorded,
        )  # fmt: skip


def _place(events: Any, wanted: Callable[[Event], bool]) -> int:
    """That of the first such event, counted from 1; 0 if there is none."""
    return next((place for place, event in enumerate(events, start=1) if wanted(event)), 0)
