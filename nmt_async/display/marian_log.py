"""``train.log``: lines in the form that Marian writes, so that people's scripts read them.

A sitting begins with the program and its options, as Marian's does (readers such as marian-tensorboard pass over the
first two lines of a log). Training lines follow marian-dev's scheduler (``Ep. 1 : Up. 500 : Sen. 31,905 : Cost 9.98 *
12,345 @ 88 after 612,345 : Time 62.73s : 1409.48 words/s : gNorm 1.02 : L.r. 3.0e-04``), validation lines its
validators.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nmt_async.display.reports import TrainReport, ValidReport
from nmt_async.formatting import number, percent

VALIDATION_NAMES = {"cross-entropy": "ce-mean-words", "perplexity": "perplexity", "bleu": "bleu", "chrf": "chrf"}
"""Marian's names for what we measure: its ``ce-mean-words`` is our cross-entropy per target token."""

LINE = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] (?:\[([a-z-]+)\] )?(.*)")
REPORT = re.compile(r"Ep\. \d+ : Up\. ([0-9]{1,18}) : ")


def stamp(moment: datetime.datetime) -> str:
    """The time in brackets with which every line begins."""
    return moment.strftime("[%Y-%m-%d %H:%M:%S]")


def opening_lines(version: str, host: str, process: int, configuration: str) -> list[str]:
    """What a log begins with at each start of the run.

    Args:
        version: of nmt-async.
        host, process: where it runs.
        configuration: the options, one a line.
    """
    return [
        f"[nmt-async] nmt-async {version}",
        f"[nmt-async] Running on {host} as process {process}",
        *(f"[config] {line}" for line in configuration.splitlines()),
    ]


def train_line(report: TrainReport) -> str:
    """One stretch of training."""
    return (
        f"Ep. {report.epoch} : Up. {report.update} : Sen. {report.sentences:,} : "
        f"Cost {report.loss:.8f} * {report.stretch_tokens:,} @ {report.latest_tokens:,} after "
        f"{report.target_tokens:,} : Time {report.seconds:.2f}s : {report.target_tokens_per_second:.2f} words/s : "
        f"gNorm {report.gradient_norm:.4f} : L.r. {report.learning_rate:.4e}"
    )


def machines_line(report: TrainReport, names: Sequence[str]) -> str:
    """What each machine that shares the run did in the stretch; Marian's logs have nothing like it."""
    parts = (
        f"{name} {report.machine_rate(rank):.2f} words/s, {percent(report.machine_share(rank), 1)}, "
        f"waiting {percent(report.machine_waiting[rank], 1)}, staleness {number(report.machine_staleness[rank], 2)}"
        for rank, name in enumerate(names)
    )
    return f"[machines] {' : '.join(parts)}"


def corpora_line(report: TrainReport) -> str:
    """What each corpus has given so far; Marian's logs have nothing like it."""
    parts = (
        f"{name} {pairs:,} pairs, {percent(report.corpus_share(name), 1)}, {report.corpus_tokens[name]:,} words"
        for name, pairs in report.corpus_pairs.items()
    )
    return f"[corpora] {' : '.join(parts)}"


def valid_lines(report: ValidReport) -> list[str]:
    """One line for each score; only the deciding one says whether it is the best. One more for all corpora.

    No exponents: readers of Marian's logs take the digits before one for the whole number.
    """
    lines = []
    for name, value in report.scores().items():
        line = f"[valid] Ep. {report.epoch} : Up. {report.update} : {VALIDATION_NAMES[name]} : {_digits(value)}"
        if name == report.metric:
            verdict = f"stalled {report.stalled} times (last best: {_digits(report.best)})"
            line += f" : {verdict if report.stalled else 'new best'}"
        lines.append(line)
    if report.corpus_cross_entropy:
        parts = (f"{name} cross-entropy {_digits(value)}" for name, value in report.corpus_cross_entropy.items())
        lines.append(f"[corpora] {' : '.join(parts)}")
    return lines


def _digits(value: float) -> str:
    """Six significant digits, written out: ``7916.61``, ``1234570``, ``0.000012``."""
    text = f"{float(f'{value:.6g}'):.12f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class LogLine:
    """A line of the log as it was read.

    Attributes:
        time: local.
        kind: what stands in its brackets (valid, warn, error, config, nmt-async); train or note if there are none.
        text: the line without time and brackets.
        update: of a report of training or validation.
    """

    time: datetime.datetime
    kind: str
    text: str
    update: int | None = None

    @property
    def is_end(self) -> bool:
        """Whether a run that ended orderly has this for its last line."""
        return self.kind == "error" or (self.kind == "note" and self.text.startswith("stopped at update "))


def read_log_line(line: str) -> LogLine | None:
    """What a line of the log says; None if it is no line of ours, or within a traceback."""
    found = LINE.fullmatch(line)
    if found is None or found[3].startswith("Traceback "):
        return None
    try:
        time = datetime.datetime.fromisoformat(found[1])
    except ValueError:
        return None
    if not 1970 < time.year < 9999:  # no machine's clock, and at either end no time since 1970
        return None
    report = REPORT.match(found[3]) if found[2] in (None, "valid") else None
    if report is not None:
        return LogLine(time, found[2] or "train", found[3], int(report[1]))
    return LogLine(time, found[2] or "note", found[3])
