"""Which models a run has: the one to translate with, its last ones, and its best ones by what validation found.

A run keeps ``checkpoints/step-N``, the state after update N and its model, and ``checkpoints/best-N``, the models that
validation found best. Its text files ``best`` and ``last`` name one of each, relative to the run.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.reading import read_json_lines, read_text, within

DESCRIPTION = "model.json"
"""The file that makes a folder a model folder; see `nmt_async.checkpoints.model_folder`."""

POINTERS = ("best", "last")

VALIDATION_METRICS = {"cross-entropy": -1, "perplexity": -1, "bleu": 1, "chrf": 1}
"""What validation measures, and whether more of it is better (1) or less (-1)."""


def find_model(folder: Path) -> Path:
    """The model folder that ``folder`` is, or that its ``best`` or else ``last`` names.

    Raises:
        UserError: there is none.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {problem}; give the folder of a run (train --out) or of one of its checkpoints.")
    if (folder / DESCRIPTION).is_file():
        return folder
    for name in POINTERS:
        pointer = folder / name
        if not pointer.is_file():
            continue
        try:
            written = read_text(pointer).strip()
            named = within(folder, written)
        except (OSError, ValueError) as error:
            raise UserError(f"{pointer} cannot be used ({error}); give a folder of {folder}/checkpoints.") from None
        if os.path.isfile(named / DESCRIPTION):
            return named
        raise UserError(
            f"{pointer} names {shown(written)}, and there is no {DESCRIPTION} in it; "
            f"give a folder of {folder}/checkpoints."
        )
    raise UserError(
        f"{folder} holds no model: neither {DESCRIPTION} nor {' nor '.join(POINTERS)} is in it; "
        f"give the folder of a run that has saved a checkpoint, or of the checkpoint."
    )


def folders_by_update(folder: Path, kind: str) -> dict[int, Path]:
    """The folders called ``kind-N`` in ``folder``, by N, the lowest first; nothing where there is no such folder."""
    named = [(path.name.removeprefix(f"{kind}-"), path) for path in folder.glob(f"{kind}-*")]
    return dict(sorted((int(number), path) for number, path in named if number.isdecimal() and number.isascii()))


def models_of(run: Path) -> dict[int, Path]:
    """The model folders of a run's checkpoints by their update, in order; one of ``step-`` and ``best-`` for each.

    Raises:
        UserError: there is none.
    """
    found: dict[int, Path] = {}
    for kind in ("best", "step"):  # of one update both hold the same model
        for update, folder in folders_by_update(run / "checkpoints", kind).items():
            if (folder / DESCRIPTION).is_file():
                found[update] = folder
    if not found:
        raise UserError(f"{run} is not the folder of a run that has saved a checkpoint; give one, or model folders.")
    return dict(sorted(found.items()))


def last_models(run: Path, count: int) -> list[Path]:
    """The ``count`` newest models of the run's ``step-`` checkpoints, oldest first.

    Raises:
        UserError: there are fewer.
    """
    steps = [folder for folder in models_of(run).values() if folder.name.startswith("step-")]
    if len(steps) < count:
        raise UserError(_too_few(run, count, len(steps), "checkpoints", "--keep-last"))
    return steps[len(steps) - count :]


def best_models(run: Path, count: int, metric: str | None) -> list[Path]:
    """The ``count`` best of the run's models that were validated, best first.

    Args:
        metric: one of `VALIDATION_METRICS`; None for the one that the run itself goes by.

    Raises:
        UserError: there are fewer, or none was measured so.
    """
    scores: dict[int, float] = {}
    for record in _validations(run):  # the later of two for one update: a resumed run came by again
        name = metric or str(record.get("metric"))
        value = record.get(name.replace("-", "_"))
        if name in VALIDATION_METRICS and isinstance(value, int | float) and math.isfinite(value):
            scores[int(record["update"])] = VALIDATION_METRICS[name] * value
    if not scores:
        wanted = metric or "the run's metric"
        raise UserError(f"{run / 'metrics.jsonl'} has no validation with {wanted}; give another --metric, or --last.")
    models = models_of(run)
    ranked = sorted((update for update in models if update in scores), key=lambda update: (-scores[update], update))
    if len(ranked) < count:
        raise UserError(_too_few(run, count, len(ranked), "validated models", "--keep-best"))
    return [models[update] for update in ranked[:count]]


def _too_few(run: Path, wanted: int, there: int, what: str, option: str) -> str:
    return f"{run} has {there} {what}, not {wanted}; ask for fewer, or train with a higher {option}."


def _validations(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    try:
        records = read_json_lines(path, whole=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); choose models yourself, or --last.") from None
    return [record for record in records if record.get("kind") == "valid" and type(record.get("update")) is int]
