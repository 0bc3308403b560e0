"""A run that machines have shared, replayed on one process from the journals of all of them.

The folders of all machines lie under that of the first one, as on a disk that they share, or copied together. Each
start of the run that led to the checkpoint is replayed with the machines that it had; the next one takes up the state
of the machine whose state it took up. What came before the first of these starts, one machine has computed by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from nmt_async.sync.between.lineage import Start, is_void, start_of, starts_of
from nmt_async.sync.between.outer import summed
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.training.journal_file import JOURNAL, SITTINGS, Sitting, read_journal, read_sittings
from nmt_async.training.machine_options import OUTER
from nmt_async.training.options import TrainOptions, stop_quantity
from nmt_async.training.parts import Shared
from nmt_async.training.replay.alone import AloneReplay, ReplayParts, events_until, options_to_replay
from nmt_async.training.replay.comparison import MODEL
from nmt_async.training.replay.sittings import check_environment, server_threads
from nmt_async.training.resuming import with_workers
from nmt_async.training.run_folder import CONFIG, DATA, MACHINE, as_it_was_begun
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
        self._starts: dict[Start, list[Event]] = {}
        of_start = self.alone
        for event in events:
            start = start_of(event)
            of_start = of_start if start is None else self._starts.setdefault(start, [])
            of_start.append(event)

    @property
    def starts(self) -> Collection[Start]:
        """All that it was at."""
        return self._starts.keys()

    def has(self, start: Start) -> bool:
        """Whether it was at a start, with workers."""
        return start in self._starts and self._starts[start][0].worker > 0

    def start(self, start: Start) -> list[Event]:
        """The events of a start that it has, those too that became void later."""
        return self._starts[start]

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
        records: of the machines whose folders are here.
        goal: the checkpoint to go to.

    Attributes:
        most_machines: that shared a start.

    Raises:
        UserError: it cannot be replayed here.
    """

    def __init__(self, run: Path, parts: ReplayParts, records: Sequence[MachineRecord], goal: Checkpoint) -> None:
        self.run_folder = run
        self.parts = parts
        machines = [_machines_of(run, start, records, goal) for start in goal.starts]
        self.most_machines = max(map(len, machines))
        noted = [each[0].sitting(start.number).shared for start, each in zip(goal.starts, machines, strict=True)]
        went_on = [
            Saved(start.version, each.machine if each else 0, each.events if each else None)
            for start, each in zip(goal.starts, noted, strict=True)
        ]
        self._alone = _what_came_before(run, parts, records[0], went_on[0]) if went_on[0].version else None
        self._starts = [
            SharedStartReplay(run, parts, each, start, saved)
            for each, start, saved in zip(machines, goal.starts, [*went_on[1:], goal.saved], strict=True)
        ]
        self._machine: MachineCoordinator | None = None

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
            return {MODEL: self.parts.as_saved(machine.parameters if average is None else average)}
        tensors, outer = machine.state()[1], {} if machine.outer is None else machine.outer.tensors
        return {name: tensors[name] for name in (*machine.server.vectors(), *outer)}


def records_of(run: Path, options: TrainOptions) -> list[MachineRecord]:
    """What the machines have recorded whose folders are in that of the first one, which comes first.

    Args:
        options: of the first one.

    Raises:
        UserError: a folder cannot be read, or is of another run.
    """
    others = sorted(folder for folder in run.glob(f"{MACHINE}*") if (folder / JOURNAL).exists())
    return [MachineRecord(run, as_it_was_begun(run)), *(_other_record(run, folder, options) for folder in others)]


def _other_record(run: Path, folder: Path, first: TrainOptions) -> MachineRecord:
    if not (folder / CONFIG).exists() and first.cluster == "simulated":
        return MachineRecord(folder, as_it_was_begun(run))  # it has no options of its own
    options = options_to_replay(folder)
    for field in dataclasses.fields(TrainOptions):
        here, there = getattr(first, field.name), getattr(options, field.name)
        if field.name not in OWN and not field.metadata["changeable"] and here != there:
            raise UserError(
                f"{folder} is of another run than {run}: it has {flag_of(field)} {there}, and not {here}; a replay "
                f"needs the folders of the machines of one run."
            )
    if _data_of(folder) != _data_of(run):
        raise UserError(f"{folder} is of another run than {run}: its data are others.")
    return MachineRecord(folder, as_it_was_begun(folder))


def _data_of(folder: Path) -> Any:
    try:
        return read_object(folder / DATA)["fingerprint"]
    except (OSError, ValueError, LookupError):
        raise UserError(f"{folder / DATA} cannot be read: nobody knows on which data it was trained.") from None


def _machines_of(run: Path, start: Start, records: Sequence[MachineRecord], goal: Checkpoint) -> list[MachineRecord]:
    """The machines of a start, by rank; the folder of one that went on without others has its number from before.

    Raises:
        UserError: one of them is not here.
    """
    there = [record for record in records if record.has(start)]
    there.sort(key=lambda record: record.folder != goal.machine)  # the group of the machine that has the checkpoint
    machines = there[0].start(start)[0].batch[0] if there else 1
    by_rank: dict[int, MachineRecord] = {}
    for record in reversed(there):
        event = record.start(start)[0]
        if event.batch[0] == machines:
            by_rank[event.batch[1]] = record
    missing = [rank for rank in range(machines) if rank not in by_rank]
    if missing:
        raise UserError(
            f"{run}: start {start.number} of the run, from update {start.version:,} on, had {machines} "
            f"machine{'s' * (machines > 1)}, and no journal here is that of machine {missing[0]} of them; a replay "
            f"needs the folders of all machines, as {folder_of(run, missing[0] or 1)}: copy them there."
        )
    return [by_rank[rank] for rank in range(machines)]


def _what_came_before(run: Path, parts: ReplayParts, record: MachineRecord, saved: Saved) -> AloneReplay:
    """What one machine has computed by itself before the run was shared.

    Raises:
        UserError: it is not recorded.
    """
    events = effective(record.alone)
    standing = events_until(saved.version, events) if saved.events is None else _counted(events, saved.events)
    if not any(event.kind is Kind.UPDATED and event.version == saved.version for event in standing):
        raise UserError(f"{record.journal} ends before update {saved.version:,}, from which the run was shared.")
    return AloneReplay(run, parts, record.header, standing, record.alone)


@dataclass(frozen=True)
class Checkpoint:
    """One that a replay can go to.

    Attributes:
        machine: the folder of the machine that has it.
        folder: of the checkpoint.
        starts: that led to it; none where one machine alone did.
        saved: the state.
    """

    machine: Path
    folder: Path
    starts: tuple[Start, ...]
    saved: Saved


def checkpoints_of(records: Sequence[MachineRecord]) -> list[Checkpoint]:
    """All that the machines have and that no later start made void; a damaged one says nothing of its starts."""
    known = {start for record in records for start in record.starts}
    found = [each for record in records for each in _states_of(record.folder)]
    known |= {start for each in found for start in each.starts}
    return [each for each in found if not is_void(each.starts, each.saved.version, known)]


def _states_of(machine: Path) -> Iterator[Checkpoint]:
    for version, folder in folders_by_update(machine / "checkpoints", "step").items():
        try:
            values = read_values(folder)["coordinator"]
            starts, events = tuple(starts_of(values.get("starts", ()))), values.get("events")
            saved = Saved(version, int(values.get("machine", 0)), None if events is None else int(events))
        except NO_VALUES:
            starts, saved = (), Saved(version, 0, None)
        yield Checkpoint(machine, folder, starts, saved)


def best_of(machine: Path, states: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
    """The models that a machine keeps as its best ones; a later state says which starts led to them."""
    for version, folder in folders_by_update(machine / "checkpoints", "best").items():
        later = min((each for each in states if each.saved.version >= version), key=_order, default=None)
        if later is not None:
            starts = tuple(start for start in later.starts if start.version < version)
            yield Checkpoint(machine, folder, starts, Saved(version, 0, None))


def _order(checkpoint: Checkpoint) -> tuple[int, int]:
    """Later ones come later."""
    return checkpoint.starts[-1].number if checkpoint.starts else 0, checkpoint.saved.version


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
        if self.saved.machine >= len(self.records):
            raise UserError(f"{self.run}: there was no machine {self.saved.machine} in start {self.start.number}.")
        for rank in range(len(self.records)):
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
        try:
            stop = None if sitting.stop_after is None else stop_quantity(sitting.stop_after)
            if shared.keys() - {"between", *OUTER}:
                raise TypeError(f"{next(iter(shared.keys() - {'between', *OUTER}))} is not known")
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
        sitting = record.sitting(self.start.number)
        return MachineReplay(
            lambda record, count: self.parts.coordinator(options, record, count, Shared(workers, rank)),
            self.parts.worker(sitting), self.parts.data.train, recorded,
        )  # fmt: skip


def _place(events: Iterable[Event], wanted: Callable[[Event], bool]) -> int:
    """That of the first such event, counted from 1; 0 if there is none."""
    return next((place for place, event in enumerate(events, start=1) if wanted(event)), 0)
