"""What a run has saved: each checkpoint and best model whole, and the pointers to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nmt_async.checkpoints.model_folder import model_damages
from nmt_async.checkpoints.run_models import DESCRIPTION, POINTERS, folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages
from nmt_async.doctor.finding import Finding
from nmt_async.errors import UserError, shown
from nmt_async.reading import read_text, within


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
