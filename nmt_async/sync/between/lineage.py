"""The starts of a run that machines share, and what of a machine's journal stands after them.

Starts are numbered, the same on all machines. Each goes on from the parameters of a version, so what an earlier start
made after that version is void; a machine that was not there then finds out when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nmt_async.sync.journal import Event, Kind


class Start(NamedTuple):
    """One start of the run: its number, from 1, and the version that it went on from."""

    number: int
    version: int


def starts_of(values: Any) -> list[Start]:
    """As a checkpoint stores them.

    Raises:
        TypeError, ValueError: it stores something else.
    """
    return [Start(int(number), int(version)) for number, version in values]


def start_of(event: Event) -> Start | None:
    """The start of a shared run that an event tells of; None if it tells of none."""
    return Start(event.tokens, event.version) if event.kind is Kind.RESUMED and event.batch[0] else None


def last_version(number: int, starts: Iterable[Start]) -> float:
    """The last version that the start of that number made and that was not void later."""
    return min((start.version for start in starts if start.number > number), default=float("inf"))


def is_void(starts: Sequence[Start], version: int, known: Iterable[Start]) -> bool:
    """Whether a later start went on from an earlier version than that of a state.

    Args:
        starts: of the run, until the state was saved.
        known: starts of the run that anybody knows of.
    """
    return version > last_version(starts[-1].number if starts else 0, known)


def standing(events: Sequence[Event], starts: Iterable[Start]) -> int:
    """How many events of a machine's journal stand.

    Args:
        events: those that stood until now, as `nmt_async.sync.journal.effective` gives them.
        starts: of the run, with the one that begins now.

    Returns:
        Counts no resumes, as `Event.stands` does.
    """
    starts = tuple(starts)
    counted = stands = number = 0
    for event in events:
        if event.kind is Kind.RESUMED:
            number = event.tokens
            continue
        counted += 1
        if event.kind is Kind.UPDATED and event.version <= last_version(number, starts):
            stands = counted
    return stands


def landed_unheard(events: Sequence[Event], starts: Iterable[Start]) -> Event | None:
    """The update that this machine did not hear of, though the run went on from parameters that have its contribution.

    Args:
        events: of its journal, those that stand.
        starts: of the run, with the one that begins now.
    """
    tokens: int | None = None
    version = number = 0
    local = False  # whether machines made updates of their own
    for event in events:
        if event.kind is Kind.CONTRIBUTED:
            tokens, version = event.tokens, event.version
        elif event.kind is Kind.UPDATED:
            tokens = None
        elif event.kind is Kind.RESUMED:
            tokens, number, local = None, event.tokens, not event.pieces
    least = version if local else version + 1
    landed = last_version(number, starts)  # if it did: without this machine there was no later exchange
    if tokens is None or not least <= landed < float("inf"):
        return None
    return Event(Kind.UPDATED, version=int(landed), tokens=tokens, pieces=0 if local else 1)
