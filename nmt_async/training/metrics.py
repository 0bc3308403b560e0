"""Measures a run and writes what it measures.

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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nmt_async import __version__
from nmt_async.display.marian_log import opening_lines, stamp, train_line, valid_lines
from nmt_async.display.reports import TrainReport, ValidReport
from nmt_async.reading import as_dataclass, read_json_lines
from nmt_async.sync.push import Update
from nmt_async.training.moment import Moment
from nmt_async.training.tensorboard import TensorBoardFile
from nmt_async.writing import write_whole


class Stretch:
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

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {**vars(self), "begin": vars(self.begin), "staleness": list(self.staleness.items())}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Stretch:
        """The stretch of which `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is not what `state` gives.
        """
        stretch = cls(as_dataclass(Moment, state["begin"]))
        for name, value in vars(stretch).items():
            if name in state and name not in ("begin", "staleness"):
                setattr(stretch, name, type(value)(state[name]))
        stretch.staleness.update({int(age): int(count) for age, count in state["staleness"]})
        return stretch

    def report(self, moment: Moment, waiting_share: list[float], set_aside: int) -> TrainReport:
        """What happened up to ``moment``; needs at least one update."""
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
            stall_seconds=self.stall_seconds,
            stall_longest=self.stall_longest,
        )


class MetricsFiles:
    """The files of a run's figures, opened for appending.

    Args:
        folder: of the run.
        update: figures of later updates are of no run any more (it was resumed from there) and are taken out.
        validated: the same for validations; one after it is made again.
        tensorboard: write them for TensorBoard too.
    """

    def __init__(self, folder: Path, update: int, validated: int, tensorboard: bool = False) -> None:
        metrics, sentences = folder / "metrics.jsonl", folder / "validation.jsonl"
        for path in (metrics, sentences):
            if path.exists():
                _drop_later(path, update, validated)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._sentences = sentences.open("a", encoding="utf-8")
        self._log = (folder / "train.log").open("a", encoding="utf-8")
        configuration = (folder / "config.yaml").read_text(encoding="utf-8")
        with contextlib.suppress(OSError):  # what the disk has no room for comes with the first report
            self._write(None, opening_lines(__version__, socket.gethostname(), os.getpid(), configuration))
        self._events = TensorBoardFile(folder) if tensorboard else None

    def trained(self, report: TrainReport) -> None:
        """A stretch of training.

        Raises:
            OSError: it could not be written, as for the other two; what was not is written with what comes next.
        """
        with self._shown(report):
            self._write(report.as_mapping(), [train_line(report)])

    def validated(self, report: ValidReport, losses: np.ndarray, tokens: np.ndarray) -> None:
        """A validation, with the loss and the number of target tokens of each pair, both (pairs,)."""
        with self._shown(report):
            self._write(report.as_mapping(), valid_lines(report))
            values = {"kind": "valid", "update": report.update, "losses": [_finite(float(f"{x:.5g}")) for x in losses]}
            if not self._sentences.tell():
                values["tokens"] = tokens.tolist()
            print(json.dumps(values), file=self._sentences, flush=True)

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
        self._write(None, [text])

    def _write(self, values: dict[str, Any] | None, lines: list[str]) -> None:
        if values is not None:
            print(json.dumps({name: _finite(value) for name, value in values.items()}), file=self._metrics, flush=True)
        now = stamp(datetime.datetime.now())
        print("\n".join(f"{now} {line}" for line in lines), file=self._log, flush=True)

    def close(self) -> None:
        """Nothing more will be written."""
        for file in (self._metrics, self._sentences, self._log):
            with contextlib.suppress(OSError):  # of a full disk `trained` has told
                file.close()
        if self._events is not None:
            self._events.close()


def _finite(value: Any) -> Any:
    """JSON knows no number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_later(path: Path, update: int, validated: int) -> None:
    last = {"train": update, "valid": min(update, validated)}

    def stands(values: dict[str, Any]) -> bool:
        at, kind = values.get("update", 0), values.get("kind", "")
        return isinstance(at, int) and isinstance(kind, str) and at <= last.get(kind, 0)

    kept = [values for values in read_json_lines(path) if stands(values)]
    write_whole(path, "".join(json.dumps(values) + "\n" for values in kept).encode())
