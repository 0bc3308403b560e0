"""Whether what was written before can still be read: prepared data, what a run saved, its journal and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nmt_async.checkpoints.model_folder import model_damages
from nmt_async.checkpoints.run_models import DESCRIPTION, POINTERS, folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages
from nmt_async.checksums import damages
from nmt_async.display.recorded_run import read_reports
from nmt_async.display.reports import MachinesReport
from nmt_async.doctor.finding import Finding, mebibytes
from nmt_async.errors import UserError, shown
from nmt_async.reading import read_text, within
from nmt_async.sync.journal import effective
from nmt_async.sync.ledger import ledger_of
from nmt_async.text.prepared import MANIFEST, read_manifest
from nmt_async.training.journal_file import JOURNAL, environment, read_journal


def data_findings(folder: Path) -> Iterator[Finding]:
    """One for each damaged file, or one that says that the data is whole.

    Raises:
        UserError: ``folder`` is not a prepared folder.
    """
    files = read_manifest(folder)["files"]
    found = damages(folder, {name: str(file["sha256"]) for name, file in files.items()})
    for damage in found:
        yield Finding("data", "wrong", f"{folder}/{damage}", "copy the folder again, or run prepare again")
    if not found:
        size = sum((folder / name).stat().st_size for name in files)
        yield Finding(
            "data", "fine", f"{len(files)} files, {mebibytes(size)}, as {folder / MANIFEST} says (SHA-256 of each)"
        )


def saved_findings(run: Path) -> Iterator[Finding]:
    """One for each damaged folder or pointer, and one of those that are whole."""
    folder = run / "checkpoints"
    steps, models = ([*folders_by_update(folder, kind).values()] for kind in ("step", "best"))
    broken = {path: found for path in [*steps, *models] if (found := _damages(path, path in steps))}
    whole = [path for path in steps if path not in broken]
    for path, found in broken.items():
        yield Finding("checkpoints", "wrong", f"{path}: {'; '.join(found)}", _advice(path, steps, whole))
    yield from _pointers(run)
    kept = [path.name for path in [*steps, *models] if path not in broken]
    if kept:
        yield Finding("checkpoints", "fine", f"{', '.join(kept)}: all files as they were written (SHA-256 of each)")
    elif not broken:
        yield Finding("checkpoints", "note", f"{folder} holds none so far")


def _damages(path: Path, is_checkpoint: bool) -> list[str]:
    try:
        found = checkpoint_damages(path) if is_checkpoint else model_damages(path)
    except UserError as error:  # another version wrote it
        found = [str(error).removeprefix(f"{path}/").rstrip(".")]
    return found if path.exists() else []  # its trainer may have removed it just now


def _advice(path: Path, steps: list[Path], whole: list[Path]) -> str:
    if path not in steps:
        return "use another model; train makes a new one with the next better validation"
    if not whole:
        return "no checkpoint is whole: begin anew with another --out"
    if path == steps[-1]:
        return f"train would go on from {whole[-1].name}; what was done after that is done again"
    return "remove it: train goes on from a later one"


def _pointers(run: Path) -> Iterator[Finding]:
    for name in POINTERS:
        pointer = run / name
        if not pointer.exists():
            continue
        try:
            target = read_text(pointer).strip()
            named = within(run, target) / DESCRIPTION if target else None
        except (OSError, ValueError) as error:
            yield Finding(name, "wrong", f"{pointer} cannot be read ({error})", "remove it; the next save writes it")
            continue
        if named is None or not named.is_file():
            advice = "give translate a folder of checkpoints/ itself; the next save writes it"
            yield Finding(name, "wrong", f"{pointer} names {shown(target)}, and no model is there", advice)


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
    count = sum(not isinstance(report, MachinesReport) for report in reports)
    return Finding("metrics", "fine", f"{count:,} reports")
