"""The validations of all runs as ``results.csv``, for spreadsheets and other people's plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from nmt_async.study.result import Point, Result

COLUMNS = {
    "condition": "what the run shares with those of other seeds",
    "seed": "of the run",
    "mode": "how gradients became updates: sync, async, hybrid:N, local:N",
    "cluster": "processes or simulated",
    "profile": "of the simulated cluster",
    "workers": "how many",
    "parameters": "of the model",
    "data": "fingerprint of the prepared data",
    "folder": "of the run, relative to the study's folder",
    "diverged": "in what way parameters or gradients were not finite any more, empty if they were to the end",
    "update": "of training, when the validated version was made",
    "tokens": "target tokens trained on until then",
    "epochs": "gone by until then",
    "seconds": "of the cluster's clock until then",
    "cross_entropy": "of the validation set, nats per target token",
    "bleu": "of its translations, empty where not translated",
    "chrf": "of its translations, empty where not translated",
    "effective_batch": "target tokens in an update, mean of the whole run",
    "tokens_per_second": "target tokens a second of the cluster's clock, mean of the whole run",
    "staleness_mean": "of all pushes of the whole run, in updates",
    "bytes_per_push": "that crossed from a worker to the server, mean of the whole run; empty where unknown",
}
"""Column: what it holds. Behind them come the options of train, as ``option.KEY``, empty where they are defaults."""


def csv_text(results: Sequence[Result]) -> str:
    """A header and one row for each validation of each run."""
    options = sorted({key for result in results for key in result.setting.options})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"option.{key}" for key in options)])
    for result in results:
        typed = [result.setting.options.get(key, "") for key in options]
        for point in result.points:
            writer.writerow([*(_value(result, point, name) for name in COLUMNS), *typed])
    return text.getvalue()


def _value(result: Result, point: Point, name: str) -> Any:
    if hasattr(point, name):
        value = getattr(point, name)
    elif hasattr(result, name):
        value = getattr(result, name)
    else:
        value = getattr(result.setting, name)
    return "" if value is None else value
