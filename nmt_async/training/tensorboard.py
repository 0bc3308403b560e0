"""``train --tensorboard``: the figures of ``metrics.jsonl`` as events that TensorBoard shows, in ``RUN/tensorboard``.

At each start the events are made anew from ``metrics.jsonl``, with the times that ``train.log`` has: so a run that is
resumed has each update once, what was void is gone, and the option may come and go from one start to the next. They
are written here and not by torch's SummaryWriter, whose thread would end on a full disk, with a traceback.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt_async.display.marian_log import read_log_line
from nmt_async.display.recorded_run import read_reports
from nmt_async.display.reports import MachinesReport, TrainReport, ValidReport
from nmt_async.errors import UserError

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

TRAIN_TAGS = {
    "time": "train/time", "epoch": "train/epoch", "epochs": "train/epochs", "sentences": "train/sentences",
    "source_tokens": "train/source_tokens", "target_tokens": "train/target_tokens",
    "source_tokens_per_second": "train/source_tokens_per_second",
    "target_tokens_per_second": "train/target_tokens_per_second", "seconds": "train/seconds",
    "stall_seconds": "train/stall_seconds", "stall_longest": "train/stall_longest",
    "stretch_tokens": "train/stretch_tokens", "loss": "train/loss", "learning_rate": "train/learning_rate",
    "gradient_norm": "updates/gradient_norm", "effective_batch": "updates/effective_batch",
    "latest_tokens": "updates/latest_tokens", "staleness_mean": "updates/staleness_mean",
    "staleness_max": "updates/staleness_max", "set_aside": "updates/set_aside",
    "update_seconds": "updates/update_seconds",
    "reading_seconds": "workers/reading_seconds",
    "refused_stale": "updates/refused_stale", "refused_not_finite": "updates/refused_not_finite",
    "pushed_bytes": "updates/pushed_bytes",
}  # fmt: skip
"""The scalars of a `TrainReport`; beside them stand the histogram of staleness and each worker's waiting."""

STALENESS, WAITING = "updates/staleness", "workers/waiting_share"

MACHINE_TAGS = {
    "machine_tokens": "machines/target_tokens", "machine_pushes": "machines/pushes",
    "machine_waiting": "machines/waiting_share", "machine_staleness": "machines/staleness_mean",
}  # fmt: skip
MACHINE_RATE = "machines/target_tokens_per_second"
"""Of a run that machines share, these have a scalar for each machine."""

CORPUS_TAGS = {"corpus_pairs": "corpora/pairs", "corpus_tokens": "corpora/target_tokens"}
VALID_CORPUS_TAGS = {"corpus_cross_entropy": "corpora/valid_cross-entropy"}
"""Of data of several corpora, these have a scalar for each."""

VALID_TAGS = {
    "time": "valid/time", "epoch": "valid/epoch", "source_tokens": "valid/source_tokens",
    "target_tokens": "valid/target_tokens", "cross_entropy": "valid/cross-entropy", "perplexity": "valid/perplexity",
    "bleu": "valid/bleu", "chrf": "valid/chrf", "stalled": "valid/stalled", "best": "valid/best",
    "seconds": "valid/seconds",
}  # fmt: skip
"""The scalars of a `ValidReport`."""


def require_tensorboard() -> None:
    """Nothing, where the package is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard: the package tensorboard is not installed; run pip install 'nmt-async[tensorboard]'."
        )


class TensorBoardFile:
    """The events of a run.

    Args:
        run: its folder, in which ``metrics.jsonl`` and ``train.log`` hold all reports so far.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.folder = run / "tensorboard"
        self._writer: RecordWriter | None = None
        with contextlib.suppress(OSError):  # it is tried again, and told of, with the first report
            self._begin()

    def add(self, report: TrainReport | ValidReport) -> None:
        """A report that ``metrics.jsonl`` has already.

        Raises:
            OSError: it could not be written; all is made anew with the next report.
        """
        try:
            if self._writer is None:
                self._begin()
            else:
                self._writer.write(_event(report, time.time()))
                self._writer.flush()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """The next report makes all anew."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()

    def _begin(self) -> None:
        """Writes a file with all reports so far beside the older ones, which go when it is whole."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        path, beside = self.folder / name, self.folder / "events.partial"
        times = _logged_times(self.run / "train.log")
        writer = RecordWriter(beside.open("wb"))
        try:
            for event in _opening_events():
                writer.write(event)
            for report in self._reports():
                writer.write(_event(report, times.get((type(report), report.update), time.time())))
            writer.flush()
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                writer.close()
            beside.unlink(missing_ok=True)
            raise
        for older in self.folder.glob("events.out.tfevents.*"):
            if older != path:
                older.unlink(missing_ok=True)
        self._writer = writer

    def _reports(self) -> list[TrainReport | ValidReport]:
        try:
            found = read_reports(self.run / "metrics.jsonl")
        except UserError as damage:  # no reason to end a run
            raise OSError(str(damage)) from None
        return [report for report in found if not isinstance(report, MachinesReport)]


def _logged_times(log: Path) -> dict[tuple[type[TrainReport] | type[ValidReport], int], float]:
    """When the report of each update was logged for the last time, in seconds since 1970."""
    times: dict[tuple[type[TrainReport] | type[ValidReport], int], float] = {}
    for line in map(read_log_line, log.read_text(encoding="utf-8", errors="replace").split("\n")):
        if line is not None and line.update is not None:
            times[ValidReport if line.kind == "valid" else TrainReport, line.update] = line.time.timestamp()
    return times


def _opening_events() -> list[bytes]:
    """What an events file begins with; a TensorBoard that has shown older events of the run forgets them."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    now = time.time()
    return [
        Event(wall_time=now, file_version="brain.Event:2").SerializeToString(),
        Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)).SerializeToString(),
    ]


def _event(report: TrainReport | ValidReport, wall_time: float) -> bytes:
    """All values of a report, at its update."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(report).items()]
    if isinstance(report, TrainReport):
        values.append(Summary.Value(tag=STALENESS, histo=_histogram(report.staleness)))
    return bytes(Event(wall_time=wall_time, step=report.update, summary=Summary(value=values)).SerializeToString())


def scalars(report: TrainReport | ValidReport) -> dict[str, float]:
    """The report's numbers by their tags; scores that were not measured are left out."""
    tags = TRAIN_TAGS if isinstance(report, TrainReport) else VALID_TAGS
    named = {tag: getattr(report, name) for name, tag in tags.items()}
    if isinstance(report, TrainReport):
        named |= {f"{WAITING}/{worker}": share for worker, share in enumerate(report.waiting_share)}
        for name, tag in MACHINE_TAGS.items():
            named |= {f"{tag}/{rank}": value for rank, value in enumerate(getattr(report, name))}
        rates = map(report.machine_rate, range(len(report.machine_tokens)))
        named |= {f"{MACHINE_RATE}/{rank}": rate for rank, rate in enumerate(rates)}
    for name, tag in (CORPUS_TAGS if isinstance(report, TrainReport) else VALID_CORPUS_TAGS).items():
        named |= {f"{tag}/{corpus}": value for corpus, value in getattr(report, name).items()}
    return {tag: float(value) for tag, value in named.items() if value is not None}


def _histogram(counts: Mapping[int, int]) -> Any:
    """Counted whole numbers as TensorBoard's histogram, each in the middle of a bucket of its own."""
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    ages = range(max(counts, default=0) + 1)
    return HistogramProto(
        min=min(counts, default=0),
        max=max(counts, default=0),
        num=sum(counts.values()),
        sum=sum(age * count for age, count in counts.items()),
        sum_squares=sum(age * age * count for age, count in counts.items()),
        bucket_limit=[-0.5, *(age + 0.5 for age in ages)],
        bucket=[0, *(counts.get(age, 0) for age in ages)],
    )
