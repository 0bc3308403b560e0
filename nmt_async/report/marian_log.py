"""``train.log``: lines in the form that Marian writes, so that people's scripts read them.

Training lines follow marian-dev's scheduler (``Ep. 1 : Up. 500 : Sen. 31,905 : Cost 9.98 * 12,345 @ 88 after
612,345 : Time 62.73s : 1409.48 words/s : gNorm 1.02 : L.r. 3.0e-04``), validation lines its validators.
"""

from __future__ import annotations

import datetime

from nmt_async.report.records import TrainReport, ValidReport

VALIDATION_NAMES = {"cross-entropy": "ce-mean-words", "perplexity": "perplexity", "bleu": "bleu", "chrf": "chrf"}
"""Marian's names for what we measure: its ``ce-mean-words`` is our cross-entropy per target token."""


def stamp(moment: datetime.datetime) -> str:
    """The time in brackets with which every line begins."""
    return moment.strftime("[%Y-%m-%d %H:%M:%S]")


def train_line(report: TrainReport) -> str:
    """One stretch of training."""
    return (
        f"Ep. {report.epoch} : Up. {report.update} : Sen. {report.sentences:,} : "
        f"Cost {report.loss:.8f} * {report.stretch_tokens:,} @ {report.latest_tokens:,} after "
        f"{report.target_tokens:,} : Time {report.seconds:.2f}s : {report.target_tokens_per_second:.2f} words/s : "
        f"gNorm {report.gradient_norm:.4f} : L.r. {report.learning_rate:.4e}"
    )


def valid_lines(report: ValidReport) -> list[str]:
    """One line for each score; only the deciding one says whether it is the best."""
    lines = []
    for name, value in report.scores().items():
        line = f"[valid] Ep. {report.epoch} : Up. {report.update} : {VALIDATION_NAMES[name]} : {value:.6g}"
        if name == report.metric:
            verdict = f"stalled {report.stalled} times (last best: {report.best:.6g})"
            line += f" : {verdict if report.stalled else 'new best'}"
        lines.append(line)
    return lines
