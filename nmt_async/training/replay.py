"""A run's journal, replayed on one process: whether it leads to the parameters of the run's checkpoint, bit for bit.

The gradients are computed with as many threads as each sitting of the run had, the updates with as many as its server
had: sums of floats depend on how they are shared out. What else they depend on, the machine and torch, must be here
what it was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.sync.between.lineage import start_of
from nmt_async.sync.compression.error_feedback import NAME
from nmt_async.sync.journal import Event, effective
from nmt_async.training.journal_file import JOURNAL, read_journal
from nmt_async.training.replay_alone import (
    AloneReplay,
    ReplayParts,
    data_to_replay,
    events_until,
    options_to_replay,
    own_threads,
)
from nmt_async.training.replay_comparison import (
    MODEL,
    Replayed,
    check_comparable,
    compared_with,
    differences,
    stored_vectors,
    vectors_like,
)
from nmt_async.training.shared_replay import SharedReplay


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
    _check_first(run, standing)
    update, checkpoint = compared_with(run, until, standing)
    stored = stored_vectors(checkpoint)
    standing = events_until(update, standing)
    with own_threads(run):
        parts = ReplayParts(begun, data)
        if any(start_of(event) for event in standing):
            shared = SharedReplay(run, parts, update, checkpoint)
            check_comparable({} if MODEL in stored else {"parameters": parts.initial}, stored, checkpoint)
            with progress.stage("replay", update, "updates") as step:
                shared.run(lambda version: step(version, version))
            ours = shared.vectors_like(stored)
            check_comparable(ours, stored, checkpoint)
            found = differences(ours, stored)
            machines = shared.most_machines
        else:
            alone = AloneReplay(run, parts, header, standing, events)
            expected = vectors_like(stored, alone.in_the_end().server)
            without = {name: vector for name, vector in expected.items() if NAME not in name}
            check_comparable(without, stored, checkpoint)
            del expected, without
            with progress.stage("replay", update, "updates") as step:
                alone.run(lambda version: step(version, version))
            found = differences(vectors_like(stored, alone.coordinator.server), stored)
            machines = 0
    return Replayed(update, checkpoint, tuple(found), {name: most for name, most in found.items() if most}, machines)


def _check_first(run: Path, events: Sequence[Event]) -> None:
    """Raises UserError where the folder is not that of the first machine."""
    other = next((event.batch[1] for event in events if start_of(event) and event.batch[1]), 0)
    if other:
        raise UserError(
            f"{run} is the folder of machine {other} of a run that several shared; give the folder of the first one, "
            f"in which the others lie."
        )
