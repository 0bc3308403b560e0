"""What a run has written down: its journal, in which each batch must be counted once, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from nmt_async.display.recorded_run import read_reports
from nmt_async.doctor.finding import Finding
from nmt_async.errors import UserError
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.sync.push import BatchKey
from nmt_async.training.run_folder import JOURNAL, environment, read_journal


def record_findings(run: Path) -> Iterator[Finding]:
    """Whether journal and metrics can be read, and whether the machine is still the one that the journal names."""
    yield from _journal(run / JOURNAL)
    yield _metrics(run / "metrics.jsonl")


def _journal(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding("journal", "wrong", f"{path} is missing", "the run goes on, but it cannot be replayed any more")
        return
    try:
        header, events = read_journal(path)
        applied, aside = counted(effective(events))
    except (UserError, ValueError) as error:
        problem = str(error).removeprefix(f"{path} ").rstrip(".")
        advice = "the run goes on, but what it records cannot be replayed"
        yield Finding("journal", "wrong", f"{path}: {problem}", advice)
        return
    found = f"{applied:,} batches applied, each once" + (f"; {aside:,} set aside" if aside else "")
    yield Finding("journal", "fine", found)
    now = environment(header.get("threads", 1))
    others = [f"{name} {header[name]}, here {value}" for name, value in now.items() if header.get(name, value) != value]
    if others:
        advice = "a resume goes on, but not bit for bit as it would have there"
        yield Finding("machine", "note", f"the run was begun with {'; '.join(others)}", advice)


def counted(events: Iterable[Event]) -> tuple[int, int]:
    """How many batches were applied and how many set aside.

    Args:
        events: those that stand.

    Raises:
        ValueError: the events cannot have happened: a batch counts twice, or one counts that nobody had.
    """
    out: set[BatchKey] = set()
    ended: set[BatchKey] = set()
    applied = aside = pushes = version = 0
    for event in events:
        where = f"batch {event.batch[1]} of epoch {event.batch[0]}"
        if event.kind in (Kind.STARTED, Kind.READMITTED):
            if event.batch in out or event.batch in ended:
                raise ValueError(f"{where} is given out twice")
            out.add(event.batch)
        elif event.kind in (Kind.ACCUMULATED, Kind.RETURNED, Kind.REFUSED):
            if event.batch not in out:
                raise ValueError(f"{where} comes back and was not given out")
            out.discard(event.batch)
            if event.kind is Kind.ACCUMULATED:
                pushes += 1
                ended.add(event.batch)
        elif event.kind is Kind.SET_ASIDE:
            aside += 1
            ended.add(event.batch)
        elif event.kind is Kind.UPDATED:
            if event.version != version + 1:
                raise ValueError(f"update {event.version} follows update {version}")
            version, applied, pushes = event.version, applied + pushes, 0
        elif event.kind is Kind.RESUMED:
            out.clear()
    return applied, aside


def _metrics(path: Path) -> Finding:
    try:
        reports = read_reports(path)
    except (OSError, UserError) as error:
        problem = str(error).rstrip(".")
        return Finding("metrics", "wrong", problem, "train drops such lines when it goes on; report needs them")
    return Finding("metrics", "fine", f"{len(reports):,} reports")
