"""A run's journal, replayed on one process: whether it leads to the parameters of the run's checkpoint, bit for bit.

The gradients are computed with as many threads as each sitting of the run had, the updates with as many as its server
had: sums of floats depend on how they are shared out. What else they depend on, the machine and torch, must be here
what it was there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.sync.between.lineage import start_of
from nmt_async.sync.compression.error_feedback import NAME
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.training.journal_file import JOURNAL, read_journal
from nmt_async.training.replay.alone import (
    AloneReplay,
    ReplayParts,
    data_to_replay,
    events_until,
    options_to_replay,
    own_threads,
)
from nmt_async.training.replay.comparison import (
    MODEL,
    Replayed,
    check_comparable,
    compared_with,
    differences,
    stored_vectors,
    vectors_like,
)
from nmt_async.training.replay.shared import (
    Checkpoint,
    MachineRecord,
    SharedReplay,
    best_of,
    checkpoints_of,
    records_of,
)
from nmt_async.training.run_folder import as_it_was_begun
from nmt_async.training.sharing import run_of


def replay(run: Path, until: int | None, moved: Path | None, progress: Progress) -> Replayed:
    """Replays the journal of the run in the folder ``run``, or those of all machines that shared it.

    Args:
        until: the update to which to go; None: that of the newest checkpoint.
        moved: where the prepared folder is, if it is not where it was.

    Raises:
        UserError: there is no such run, or nothing to compare with, or it cannot be replayed here.
        RunFailure: the journal cannot have happened.
    """
    begun = options_to_replay(run)
    data = data_to_replay(run, moved)
    header, events = read_journal(run / JOURNAL)
    try:
        standing = effective(events)
    except ValueError as error:
        raise UserError(f"{run / JOURNAL} cannot be replayed: {error}.") from None
    goal, records = None, list[MachineRecord]()
    if any(map(start_of, events)):
        _check_first(run)
        # With others it went on with another N, and under a rank.
        begun = dataclasses.replace(as_it_was_begun(run), node_rank=None)
        records = records_of(run, begun)
        goal = _goal(run, until, records, begun.outer_fragments or 1)
        update, checkpoint = goal.saved.version, goal.folder
        standing = effective(records[0].alone)
    else:
        update, checkpoint = _compared_with(run, until, standing)
    stored = stored_vectors(checkpoint)
    with own_threads(run):
        parts = ReplayParts(begun, data)
        if goal is not None and goal.starts:
            shared = SharedReplay(run, parts, records, goal)
            check_comparable({} if MODEL in stored else {"parameters": parts.initial}, stored, checkpoint)
            with progress.stage("replay", update, "updates") as step:
                shared.run(lambda version: step(version, version))
            ours, machines = shared.vectors_like(stored), shared.most_machines
            check_comparable(ours, stored, checkpoint)
        else:
            alone = AloneReplay(run, parts, header, events_until(update, standing), events)
            expected = vectors_like(stored, alone.in_the_end().server)
            without = {name: vector for name, vector in expected.items() if NAME not in name}
            check_comparable(without, stored, checkpoint)
            del expected, without
            with progress.stage("replay", update, "updates") as step:
                alone.run(lambda version: step(version, version))
            ours, machines = vectors_like(stored, alone.coordinator.server), 0
        found = differences(ours, stored)
    return Replayed(update, checkpoint, tuple(found), {name: most for name, most in found.items() if most}, machines)


def _compared_with(run: Path, until: int | None, standing: Sequence[Event]) -> tuple[int, Path]:
    """To which update to go, and the checkpoint of it, of a run of one machine."""
    made = max((event.version for event in standing if event.kind is Kind.UPDATED), default=0)
    states, best = (folders_by_update(run / "checkpoints", kind) for kind in ("step", "best"))
    folder = compared_with(run, until, _until(made, states), _until(made, best))
    return next(update for update, each in {**best, **states}.items() if each == folder), folder


def _until(made: int, folders: Mapping[int, Path]) -> dict[int, Path]:
    return {update: folder for update, folder in folders.items() if update <= made}


def _goal(run: Path, until: int | None, records: Sequence[MachineRecord], fragments: int) -> Checkpoint:
    """The checkpoint to go to, of a run that machines have shared; those of the first one come first."""
    states = {each.saved.version: each for each in reversed(checkpoints_of(records))}
    best = {each.saved.version: each for each in best_of(run, list(states.values()))}
    if fragments > 1:  # these are of moments at which the machines did not agree on all parameters
        best = {}
    folders = [{version: each.folder for version, each in kind.items()} for kind in (states, best)]
    folder = compared_with(run, until, *folders)
    return next(each for each in (*states.values(), *best.values()) if each.folder == folder)


def _check_first(run: Path) -> None:
    """Raises UserError where the folder is that of another machine than the first."""
    if run_of(run) != run:
        raise UserError(
            f"{run} is the folder of one of the machines that shared a run; give that of the first one, {run_of(run)}, "
            f"in which the others lie."
        )
