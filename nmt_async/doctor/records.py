"""What a run has written down: its journal, in which each batch must be counted once, and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nmt_async.display.recorded_run import read_reports
from nmt_async.doctor.finding import Finding
from nmt_async.errors import UserError
from nmt_async.sync.journal import effective
from nmt_async.sync.ledger import ledger_of
from nmt_async.training.journal_file import JOURNAL, environment, read_journal


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
        ledger = ledger_of(effective(events))
    except (UserError, ValueError) as error:
        problem = str(error).removeprefix(f"{path} ").rstrip(".")
        advice = "the run goes on, but what it records cannot be replayed"
        yield Finding("journal", "wrong", f"{path}: {problem}", advice)
        return
    aside = len(ledger.set_aside)
    found = f"{ledger.applied:,} batches applied, each once" + (f"; {aside:,} set aside" if aside else "")
    yield Finding("journal", "fine", found)
    now = environment(header.get("threads", 1))
    others = [f"{name} {header[name]}, here {value}" for name, value in now.items() if header.get(name, value) != value]
    if others:
        advice = "a resume goes on, but not bit for bit as it would have there"
        yield Finding("machine", "note", f"the run was begun with {'; '.join(others)}", advice)


def _metrics(path: Path) -> Finding:
    try:
        reports = read_reports(path)
    except (OSError, UserError) as error:
        problem = str(error).rstrip(".")
        return Finding("metrics", "wrong", problem, "train drops such lines when it goes on; report needs them")
    return Finding("metrics", "fine", f"{len(reports):,} reports")
