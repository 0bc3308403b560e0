"""The journals of several machines, read together: which batches are in the parameters, and that none is twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nmt_async.sync.between.lineage import Start, landed_unheard, last_version, start_of
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.ledger import Ledger
from nmt_async.text.plan import BatchId


def applied(events: Sequence[Event], starts: Iterable[Start] = ()) -> dict[BatchId, int]:
    """The batches of a machine's journal that are in the parameters, each with the version that has it first.

    Args:
        events: those that stand, as `nmt_async.sync.journal.effective` gives them.
        starts: of the run, where the machine may not have been at each of them.

    Raises:
        ValueError: one of them cannot have happened, or a batch was applied twice.
    """
    starts = tuple(starts)
    unheard = landed_unheard(events, starts)
    ledger, found, number = Ledger(), dict[BatchId, int](), 0
    for event in events if unheard is None else (*events, unheard):
        becomes = ledger.accumulated if ledger.dealt is None else ledger.on_the_way
        ledger.take(event)
        if event.kind is Kind.RESUMED:
            number = event.tokens
        if event.kind is Kind.UPDATED and event.version <= last_version(number, starts):
            for batch in becomes:
                if batch in found:
                    raise ValueError(f"batch {batch.number} of epoch {batch.epoch} was applied twice")
                found[batch] = event.version
    return found


def joint(journals: Sequence[Sequence[Event]], now: Start | None = None) -> dict[BatchId, int]:
    """The same of all machines together.

    Args:
        now: a start that would go on from a state of the run; what that has counts, and nothing that came later.

    Raises:
        ValueError: as `applied` does; also where two machines have applied the same batch.
    """
    starts = {start for events in journals for event in events if (start := start_of(event)) is not None}
    starts |= {now} if now else set()
    found = dict[BatchId, int]()
    for machine, events in enumerate(journals):
        for batch, version in applied(events, starts).items():
            if batch in found:
                raise ValueError(f"batch {batch.number} of epoch {batch.epoch} was applied twice, once by {machine}")
            found[batch] = version
    return found


def passed_over(found: Iterable[BatchId], batches: int) -> list[BatchId]:
    """The batches that are not among those found though later ones of their epoch are, or a later epoch was begun.

    Args:
        batches: of an epoch.
    """
    known = set(found)
    last = max((batch.epoch for batch in known), default=0)
    latest = max((batch.number for batch in known if batch.epoch == last), default=-1)
    every = [BatchId(epoch, number) for epoch in range(1, last) for number in range(batches)]
    every += [BatchId(last, number) for number in range(latest + 1)]
    return [batch for batch in every if batch not in known]
