"""Which models of a run to average: its last ones, or its best by what validation found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nmt_async.checkpoints.model_folder import DESCRIPTION
from nmt_async.checkpoints.numbered import numbered
from nmt_async.errors import UserError
from nmt_async.training.metrics import read_metrics

METRICS = {"cross-entropy": -1, "perplexity": -1, "bleu": 1, "chrf": 1}
"""What validation measures, and whether more of it is better (1) or less (-1)."""


def models_of(run: Path) -> dict[int, Path]:
    """The model folders of a run's checkpoints by their update, in order; one of ``step-`` and ``best-`` for each.

    Raises:
        UserError: there is none.
    """
    found: dict[int, Path] = {}
    for kind in ("best", "step"):  # of one update both hold the same model
        for update, folder in numbered(run / "checkpoints", kind).items():
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
        metric: one of `METRICS`; None for the one that the run itself goes by.

    Raises:
        UserError: there are fewer, or none was measured so.
    """
    scores: dict[int, float] = {}
    for record in _validations(run):  # the later of two for one update: a resumed run came by again
        name = metric or str(record.get("metric"))
        value = record.get(name.replace("-", "_"))
        if name in METRICS and isinstance(value, int | float) and math.isfinite(value):
            scores[int(record["update"])] = METRICS[name] * value
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
        records = read_metrics(path, whole=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); choose models yourself, or --last.") from None
    return [record for record in records if record.get("kind") == "valid" and type(record.get("update")) is int]
