"""How far a run is, what it measures on the way, and the files that it writes that to.

``metrics.jsonl`` and ``train.log`` hold its figures, ``validation.jsonl`` the loss of each validation pair (an object a
validation: ``update``, ``losses`` in nats, and in the first ``tokens``, the target tokens of each pair);
``tensorboard/`` has the figures once more, where that was asked for.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import socket
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from nmt_async import __version__
from nmt_async.display.marian_log import corpora_line, machines_line, opening_lines, stamp, train_line, valid_lines
from nmt_async.display.reports import MachinesReport, TrainReport, ValidReport
from nmt_async.quantity import Quantity
from nmt_async.reading import as_dataclass, read_json_lines
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import Update
from nmt_async.sync.schedule import Progress
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.tensorboard import TensorBoardFile
from nmt_async.writing import AppendedFile, write_whole


@dataclass(frozen=True)
class CorpusCounts:
    """Sentence pairs and their target tokens, by the name of their corpus."""

    pairs: Mapping[str, int]
    tokens: Mapping[str, int]


NO_CORPORA = CorpusCounts({}, {})


def corpus_counts(update: Update, plan: BatchPlan, data: PreparedData) -> CorpusCounts:
    """Of which corpora an update's sentence pairs are."""
    corpora = data.corpora
    if corpora is None:
        return NO_CORPORA
    indexes = np.concatenate([plan.sentences(BatchId(*push.batch)) for push in update.pushes])
    tokens = corpora.summed(indexes, data.train.target.lengths[indexes])
    return CorpusCounts(
        dict(zip(corpora.names, corpora.count(indexes).tolist(), strict=True)),
        dict(zip(corpora.names, tokens.tolist(), strict=True)),
    )


def _added(before: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: before.get(name, 0) + more.get(name, 0) for name in {**before, **more}}


@dataclass(frozen=True)
class Moment(Progress):
    """How far a run is: what a schedule counts, and more.

    Attributes:
        updates, tokens, source_tokens: so far; ``tokens`` counts target tokens.
        epochs: gone by, as a fraction.
        epoch: in which the latest update's last batch lies, from 1.
        sentences: sentence pairs of that epoch applied so far.
        seconds: of training, earlier sittings of the run included.
        pushed_bytes: that crossed with the pushes that counted.
        corpus_pairs, corpus_tokens: sentence pairs and their target tokens so far, by the name of their corpus; empty
            where the data are not divided into corpora.
    """

    source_tokens: int = 0
    epoch: int = 1
    sentences: int = 0
    seconds: float = 0.0
    pushed_bytes: int = 0
    corpus_pairs: Mapping[str, int] = field(default_factory=dict)
    corpus_tokens: Mapping[str, int] = field(default_factory=dict)

    def after(self, update: Update, epochs: float, seconds: float, of: CorpusCounts = NO_CORPORA) -> Moment:
        """The moment at which ``update``, whose pairs are ``of`` these corpora, is applied."""
        epoch = max(self.epoch, max(push.batch[0] for push in update.pushes))
        sentences = self.sentences if epoch == self.epoch else 0
        return Moment(
            updates=update.version,
            tokens=self.tokens + update.tokens,
            source_tokens=self.source_tokens + sum(push.source_tokens for push in update.pushes),
            epochs=epochs,
            epoch=epoch,
            sentences=sentences + sum(push.sentences for push in update.pushes if push.batch[0] == epoch),
            seconds=seconds,
            pushed_bytes=self.pushed_bytes + sum(push.bytes for push in update.pushes),
            corpus_pairs=_added(self.corpus_pairs, of.pairs),
            corpus_tokens=_added(self.corpus_tokens, of.tokens),
        )

    def amount(self, unit: str) -> float:
        """The moment in ``unit``, a unit of `Quantity`."""
        if unit == "minutes":
            return self.seconds / 60
        if unit == "hours":
            return self.seconds / 3600
        return super().amount(unit)

    def reaches(self, quantity: Quantity) -> bool:
        """Whether the amount has gone by."""
        return self.amount(quantity.unit) >= quantity.amount

    def share(self, quantity: Quantity | None) -> float | None:
        """How much of the amount has gone by, 0 to 1."""
        return None if quantity is None else min(1.0, self.amount(quantity.unit) / quantity.amount)


class Every:
    """Says when something that happens every so often is due: at each multiple of the amount.

    Args:
        quantity: the amount between two times.
        since: the moment from which to count on.
    """

    def __init__(self, quantity: Quantity, since: Moment) -> None:
        self.quantity = quantity
        self._done = self._multiples(since)

    def _multiples(self, moment: Moment) -> int:
        return int(moment.amount(self.quantity.unit) / self.quantity.amount)

    def due(self, moment: Moment) -> bool:
        """True if a multiple has been passed since the last time `mark` was called."""
        return self._multiples(moment) > self._done

    def mark(self, moment: Moment) -> None:
        """It has happened."""
        self._done = self._multiples(moment)


@dataclass
class MachineStretch:
    """What one of the machines that share a run has done until the next report.

    Attributes:
        tokens: target tokens of its pushes that counted.
        pushes: of its that counted.
        staleness: of all of these together, in updates.
        computing, waiting: seconds of its workers, as far as it has told.
    """

    tokens: int = 0
    pushes: int = 0
    staleness: int = 0
    computing: float = 0.0
    waiting: float = 0.0

    @property
    def waiting_share(self) -> float | None:
        """Of its workers' time; None if nothing was heard of it."""
        total = self.computing + self.waiting
        return self.waiting / total if total > 0 else None

    @property
    def staleness_mean(self) -> float | None:
        """Of its pushes; None if there was none."""
        return self.staleness / self.pushes if self.pushes else None


class ReportPeriod:
    """Collects updates until the next report.

    Args:
        begin: the moment of the last report.
    """

    def __init__(self, begin: Moment) -> None:
        self.begin = begin
        self.updates = 0
        self.loss = 0.0
        self.norms = 0.0
        self.staleness: Counter[int] = Counter()
        self.latest_tokens = 0
        self.learning_rate = 0.0
        self.stall_seconds = self.stall_longest = 0.0
        self.refused_stale = self.refused_not_finite = 0
        self.machines: list[MachineStretch] = []

    def record(self, event: Event) -> None:
        """Something happened to a batch: pushes that were refused are counted."""
        self.refused_stale += event.kind in (Kind.REFUSED, Kind.RESTARTED)
        self.refused_not_finite += event.kind is Kind.NOT_FINITE

    def stalled(self, seconds: float) -> None:
        """The server was at something else for so long."""
        self.stall_seconds += seconds
        self.stall_longest = max(self.stall_longest, seconds)

    def add(self, update: Update) -> None:
        """An update has been applied."""
        self.updates += 1
        self.loss += update.loss
        self.norms += update.gradient_norm
        self.staleness.update(update.staleness)
        self.latest_tokens = update.tokens
        self.learning_rate = update.learning_rate

    def add_machines(self, update: Update, workers: Sequence[int], seconds: Sequence[tuple[float, float]]) -> None:
        """What each machine had in an update of all machines; if their number is another now, it begins with this one.

        Args:
            workers: of each machine, by rank; the update's pushes name workers counted over all machines.
            seconds: that the workers of each machine have computed and waited since the update before.
        """
        if len(self.machines) != len(workers):
            self.machines = [MachineStretch() for _ in workers]
        ends = list(accumulate(workers))
        for push, age in zip(update.pushes, update.staleness, strict=True):
            machine = self.machines[bisect_right(ends, push.worker)]
            machine.tokens += push.tokens
            machine.pushes += 1
            machine.staleness += age
        for machine, (computing, waiting) in zip(self.machines, seconds, strict=True):
            machine.computing += computing
            machine.waiting += waiting

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        values = {**vars(self), "begin": vars(self.begin), "staleness": list(self.staleness.items())}
        return {**values, "machines": [vars(machine) for machine in self.machines]}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> ReportPeriod:
        """The period of which `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is not what `state` gives.
        """
        period = cls(as_dataclass(Moment, state["begin"]))
        for name, value in vars(period).items():
            if name in state and name not in ("begin", "staleness", "machines"):
                setattr(period, name, type(value)(state[name]))
        period.staleness.update({int(age): int(count) for age, count in state["staleness"]})
        period.machines = [as_dataclass(MachineStretch, machine) for machine in state.get("machines", ())]
        return period

    def report(
        self, moment: Moment, waiting_share: list[float], set_aside: int, update_seconds: float, reading_seconds: float
    ) -> TrainReport:
        """What happened up to ``moment``; needs at least one update.

        Args:
            waiting_share, set_aside, update_seconds, reading_seconds: as in `TrainReport`.
        """
        seconds = max(moment.seconds - self.begin.seconds, 1e-9)
        tokens = moment.tokens - self.begin.tokens
        pushes = sum(self.staleness.values())
        return TrainReport(
            time=moment.seconds,
            epoch=moment.epoch,
            epochs=moment.epochs,
            update=moment.updates,
            sentences=moment.sentences,
            source_tokens=moment.source_tokens,
            target_tokens=moment.tokens,
            source_tokens_per_second=(moment.source_tokens - self.begin.source_tokens) / seconds,
            target_tokens_per_second=tokens / seconds,
            seconds=seconds,
            stretch_tokens=tokens,
            latest_tokens=self.latest_tokens,
            loss=self.loss / tokens,
            learning_rate=self.learning_rate,
            gradient_norm=self.norms / self.updates,
            effective_batch=tokens / self.updates,
            staleness_mean=sum(updates * count for updates, count in self.staleness.items()) / pushes,
            staleness_max=max(self.staleness),
            staleness=dict(sorted(self.staleness.items())),
            waiting_share=waiting_share,
            set_aside=set_aside,
            refused_stale=self.refused_stale,
            refused_not_finite=self.refused_not_finite,
            stall_seconds=self.stall_seconds,
            stall_longest=self.stall_longest,
            update_seconds=update_seconds,
            reading_seconds=reading_seconds,
            pushed_bytes=moment.pushed_bytes - self.begin.pushed_bytes,
            machine_tokens=[machine.tokens for machine in self.machines],
            machine_pushes=[machine.pushes for machine in self.machines],
            machine_waiting=[machine.waiting_share for machine in self.machines],
            machine_staleness=[machine.staleness_mean for machine in self.machines],
            corpus_pairs=dict(moment.corpus_pairs),
            corpus_tokens=dict(moment.corpus_tokens),
        )


class MetricsFiles:
    """The files of a run's figures, opened for appending.

    Args:
        folder: of the run.
        update: figures of later updates are of no run any more (it was resumed from there) and are taken out.
        validated: the same for validations; one after it is made again.
        tensorboard: write them for TensorBoard too.
        machines: that share the run, if there are any.
    """

    def __init__(
        self,
        folder: Path,
        update: int,
        validated: int,
        tensorboard: bool = False,
        machines: MachinesReport | None = None,
    ) -> None:
        metrics, sentences = folder / "metrics.jsonl", folder / "validation.jsonl"
        for path in (metrics, sentences):
            if path.exists():
                _drop_later(path, update, validated)
        told = _latest_machines(metrics)
        self._metrics, self._sentences = AppendedFile(metrics), AppendedFile(sentences)
        if machines is not None and told != {**machines.as_mapping(), "update": told.get("update")}:
            self._metrics.append(_json_line(machines.as_mapping()))
        self._names = [] if machines is None else machines.names
        self._log = AppendedFile(folder / "train.log")
        configuration = (folder / "config.yaml").read_text(encoding="utf-8")
        with contextlib.suppress(OSError):  # what the disk has no room for comes with the first report
            self._log_lines(opening_lines(__version__, socket.gethostname(), os.getpid(), configuration))
            self._flush()
        self._events = TensorBoardFile(folder) if tensorboard else None

    def trained(self, report: TrainReport) -> None:
        """A stretch of training.

        Raises:
            OSError: it could not be written, as for the other two; what was not is written with what comes next.
        """
        self._metrics.append(_json_line(report.as_mapping()))
        machines = [machines_line(report, self._names)] if report.machine_tokens else []
        corpora = [corpora_line(report)] if report.corpus_pairs else []
        self._log_lines([train_line(report), *machines, *corpora])
        with self._shown(report):
            self._flush()

    def validated(self, report: ValidReport, losses: np.ndarray, tokens: np.ndarray) -> None:
        """A validation, with the loss and the number of target tokens of each pair, both (pairs,)."""
        values = {"kind": "valid", "update": report.update, "losses": [_finite(float(f"{x:.5g}")) for x in losses]}
        if not self._sentences.size:
            values["tokens"] = tokens.tolist()
        self._metrics.append(_json_line(report.as_mapping()))
        self._log_lines(valid_lines(report))
        self._sentences.append(_json_line(values))
        with self._shown(report):
            self._flush()

    @contextlib.contextmanager
    def _shown(self, report: TrainReport | ValidReport) -> Iterator[None]:
        """Gives TensorBoard the report that is written within."""
        try:
            yield
        except OSError:
            if self._events is not None:
                self._events.close()  # it would miss this one; now it begins anew with the next
            raise
        if self._events is not None:
            self._events.add(report)

    def note(self, text: str) -> None:
        """A sentence for ``train.log`` alone."""
        self._log_lines([text])
        self._log.flush()

    def _log_lines(self, lines: Sequence[str]) -> None:
        now = stamp(datetime.datetime.now())
        self._log.append("".join(f"{now} {line}\n" for line in lines))

    def _flush(self) -> None:
        """Writes all three; the first that fails does not keep the others from it."""
        failed: OSError | None = None
        for file in (self._metrics, self._log, self._sentences):
            try:
                file.flush()
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Nothing more will be written; of a full disk `trained` has told."""
        for file in (self._metrics, self._sentences, self._log):
            file.close()
        if self._events is not None:
            self._events.close()


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps({name: _finite(value) for name, value in values.items()}) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no number that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(of_name) for name, of_name in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latest_machines(path: Path) -> dict[str, Any]:
    """What was last written of the machines that share the run; empty if nothing was."""
    found: dict[str, Any] = {}
    if path.exists():
        for values in read_json_lines(path):
            if values.get("kind") == "machines":
                found = values
    return found


def _drop_later(path: Path, update: int, validated: int) -> None:
    last = {"train": update, "valid": min(update, validated), "machines": update}

    def stands(values: dict[str, Any]) -> bool:
        at, kind = values.get("update", 0), values.get("kind", "")
        return isinstance(at, int) and isinstance(kind, str) and at <= last.get(kind, 0)

    kept = [values for values in read_json_lines(path) if stands(values)]
    write_whole(path, "".join(json.dumps(values) + "\n" for values in kept).encode())
