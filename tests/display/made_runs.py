"""Reports of a run that never was, for the tests of what a display makes of them."""

from __future__ import annotations

import math
from pathlib import Path

from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.display.state import DisplayState, Message
from nmt_async.quantity import Quantity


def title(workers: int = 2) -> RunTitle:
    return RunTitle("demo", "hybrid", 2, ("cpu",) * workers, "small", 6_560_000, Quantity(1000, "updates"))


def trained(update: int, workers: int = 2, staleness: dict[int, int] | None = None, loss: float = 3.0) -> TrainReport:
    staleness = staleness or {0: 51, 1: 49}
    return TrainReport(
        time=update * 0.5, epoch=2, epochs=1.5, update=update, sentences=5735, source_tokens=95069 * update,
        target_tokens=101113 * update, source_tokens_per_second=2602.11, target_tokens_per_second=2767.54,
        seconds=36.5, stretch_tokens=101113, latest_tokens=2037, loss=loss, learning_rate=0.000333333,
        gradient_norm=1.5667, effective_batch=2022.26, staleness_mean=0.49, staleness_max=max(staleness),
        staleness=staleness, waiting_share=[0.04 + 0.01 * worker for worker in range(workers)], set_aside=0,
    )  # fmt: skip


def validated(update: int, entropy: float = 2.0, stalled: int = 0, bleu: float | None = 31.5) -> ValidReport:
    chrf = None if bleu is None else 54.25
    best = entropy - 0.1 * stalled
    return ValidReport(update * 0.5, 2, update, 1000, 1000, entropy, bleu, chrf, "cross-entropy", stalled, best, 5.0)


def midway(workers: int = 2, staleness: dict[int, int] | None = None) -> DisplayState:
    """A run at half its updates, with validations, a message and a warning."""
    state = DisplayState().begun(title(workers)).progressed(0.0, 0)
    for update in range(50, 501, 50):
        report = trained(update, workers, staleness, loss=math.inf if update == 100 else 500 / update)
        state = state.at(report.time).progressed(update / 1000, update).trained(report)
    state = state.validated(validated(400)).validated(validated(450, 2.1, stalled=1, bleu=None))
    return state.told(Message("demo: going on after update 0.")).told(Message("the disk is almost full", warning=True))


CONFIGURATION = """\
sync-mode: hybrid
accumulate: 2
workers: null
devices: cpu
preset: small
stop-after: 1ku
"""


def write_run(folder: Path, metrics: str) -> Path:
    """A run folder with what a picture is made of."""
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIGURATION)
    (folder / "metrics.jsonl").write_text(metrics)
    return folder
