"""The result of a run, from the files in its folder."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nmt_async import __version__
from nmt_async.display.marian_log import LogLine, read_log_line
from nmt_async.display.recorded_run import Report, read_reports, saved_parameters
from nmt_async.display.reports import MachinesReport, TrainReport, ValidReport
from nmt_async.errors import UserError
from nmt_async.options import load_yaml
from nmt_async.planning.modes import mode_name
from nmt_async.reading import as_dataclass, json_object, open_ordinary, read_object
from nmt_async.study.bootstrap import resampled_cross_entropy
from nmt_async.study.result import Machine, MachinePoint, Point, Result, TrainPoint
from nmt_async.study.setting import Setting, given_options, typed
from nmt_async.training.journal_file import JOURNAL
from nmt_async.training.run_folder import CONFIG, DATA, Ending, read_outcome

FIGURES, SENTENCES, LOG = "metrics.jsonl", "validation.jsonl", "train.log"


def collect(run: Path) -> Result:
    """What the run in ``run`` has come to so far.

    Raises:
        UserError: it is not the folder of a run, or its files are damaged.
    """
    metrics = run / FIGURES
    if not (run / CONFIG).is_file() or not metrics.is_file():
        inner = sorted(run.glob(f"*/{CONFIG}"))
        there = f"; {inner[0].parent} is one" if inner else ""
        raise UserError(f"{run} is not the folder of a run (no {CONFIG} and {FIGURES} in it){there}.")
    config = load_yaml(run / CONFIG)
    try:
        reports = read_reports(metrics)
    except OSError as error:
        raise UserError(f"{metrics} cannot be read ({error.strerror or error}).") from None
    trained = [report for report in reports if isinstance(report, TrainReport)]
    validated = sorted((one for one in reports if isinstance(one, ValidReport)), key=lambda one: one.update)
    if not trained:
        raise UserError(f"{metrics} holds no report of training; there is nothing to tell yet.")
    last = trained[-1]
    data = _data(run / DATA)
    staleness: Counter[int] = Counter()
    for report in trained:
        staleness.update(report.staleness)
    resampled = _resampled(run / SENTENCES)
    try:
        options, waiting = given_options(config, str(run / CONFIG)), waiting_of(trained)
        shared = [report for report in reports if isinstance(report, MachinesReport)]
        ending, reason = _ending(run)
        return Result(
            setting=Setting(mode_name(config), int(config["seed"]), options),
            command=_command(data.folder, config, options),
            folder=str(run),
            data=data.fingerprint,
            cluster=str(config.get("cluster", "processes")),
            profile=str(config.get("profile") or ""),
            workers=sum(shared[-1].workers) if shared else len(waiting),
            parameters=saved_parameters(run) or 0,
            environment=_environment(run),
            updates=last.update,
            tokens=last.target_tokens,
            seconds=last.time,
            wall_seconds=_wall_seconds(run / LOG),
            effective_batch=last.target_tokens / last.update,
            tokens_per_second=last.target_tokens / last.time,
            staleness=dict(sorted(staleness.items())),
            waiting=waiting,
            points=points_of(validated, trained, resampled),
            stretches=tuple(map(stretch_of, trained)),
            diverged=reason if ending == "diverged" else "",
            failed=reason if ending == "failed" else "",
            pushed_bytes=sum(report.pushed_bytes for report in trained),
            machines=machines_of(reports),
            corpus_pairs=last.corpus_pairs,
            corpus_tokens=last.corpus_tokens,
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(f"{run}: {CONFIG}, {DATA} or {FIGURES} is damaged ({error}).") from None


def _command(data: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The command that makes the run again, or goes on with it."""
    words = typed({**options, "seed": config["seed"], "out": config["out"]})
    return shlex.join(["nmt-async", "train", data, *words])


def waiting_of(reports: Sequence[TrainReport]) -> tuple[float, ...]:
    """Each worker's share of waiting over all reports, by their seconds."""
    workers = max((len(report.waiting_share) for report in reports), default=0)
    known = [report for report in reports if len(report.waiting_share) == workers]
    seconds = np.array([report.seconds for report in known])
    shares = np.array([report.waiting_share for report in known], dtype=np.float64)
    return tuple(float(share) for share in seconds @ shares / seconds.sum()) if workers else ()


def machines_of(reports: Sequence[Report]) -> tuple[Machine, ...]:
    """What each machine that shared the run did, in the order in which they came; none where nobody shared it.

    A machine is known by its rank and host, so another host of the same rank is another machine.
    """
    names: MachinesReport | None = None
    workers: dict[str, int] = {}
    parts: dict[str, list[MachinePoint]] = {}
    for report in reports:
        if isinstance(report, MachinesReport):
            names = report
            workers |= zip(report.names, report.workers, strict=True)
        elif isinstance(report, TrainReport):
            for rank, tokens in enumerate(report.machine_tokens):
                point = MachinePoint(
                    seconds=report.time, length=report.seconds, tokens=tokens, pushes=report.machine_pushes[rank],
                    waiting=report.machine_waiting[rank], staleness_mean=report.machine_staleness[rank],
                )  # fmt: skip
                parts.setdefault(f"machine {rank}" if names is None else names.name(rank), []).append(point)
    return tuple(Machine(name, workers.get(name, 0), tuple(points)) for name, points in parts.items())


def points_of(
    validated: Sequence[ValidReport], trained: Sequence[TrainReport], resampled: Mapping[int, tuple[float, ...]]
) -> tuple[Point, ...]:
    """The validations; epochs, which their reports do not have as a fraction, lie between those of training."""
    updates = [0, *(report.update for report in trained)]
    epochs = [0.0, *(report.epochs for report in trained)]
    return tuple(
        Point(
            update=report.update, tokens=report.target_tokens, seconds=report.time,
            epochs=float(np.interp(report.update, updates, epochs)), cross_entropy=_number(report.cross_entropy),
            bleu=report.bleu, chrf=report.chrf, resampled=resampled.get(report.update, ()),
        )
        for report in validated
    )  # fmt: skip


def stretch_of(report: TrainReport) -> TrainPoint:
    """What a result keeps of a report."""
    return TrainPoint(
        update=report.update, tokens=report.target_tokens, seconds=report.time, loss=_number(report.loss),
        learning_rate=report.learning_rate, gradient_norm=_number(report.gradient_norm),
        effective_batch=report.effective_batch, staleness_mean=report.staleness_mean,
        tokens_per_second=report.target_tokens_per_second, waiting=tuple(report.waiting_share),
    )  # fmt: skip


def _number(value: float | None) -> float:
    """JSON has no number that is not finite; the run has written null."""
    return math.nan if value is None else value


def _resampled(path: Path) -> dict[int, tuple[float, ...]]:
    """Update: the cross-entropy on each draw of the validation sentences; a torn last line is passed over.

    Raises:
        UserError: a line is not a validation, or has another number of sentences than the first.
    """
    found: dict[int, tuple[float, ...]] = {}
    tokens = np.empty(0)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            values = json_object(line)
            if number == 1:
                tokens = np.array(values["tokens"], dtype=np.float64)
            losses = np.array([_number(loss) for loss in values["losses"]], dtype=np.float64)
            if losses.shape != tokens.shape or losses.ndim != 1 or not (tokens > 0).all() or not len(tokens):
                raise ValueError
            found[int(values["update"])] = tuple(map(float, resampled_cross_entropy(losses, tokens)))
        except (ValueError, LookupError, TypeError, ArithmeticError):
            if number < len(lines):
                raise UserError(f"{path}, line {number}: this is not the losses of a validation.") from None
    return found


@dataclass(frozen=True)
class _Data:
    """What a run was trained on."""

    folder: str
    fingerprint: str


def _data(path: Path) -> _Data:
    try:
        return as_dataclass(_Data, read_object(path), others=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}).") from None


def _environment(run: Path) -> dict[str, Any]:
    """The journal's first line, which says on what the run was made."""
    try:
        with open_ordinary(run / JOURNAL) as file:
            header = json_object(file.readline().decode())
        known = {name: header[name] for name in ("torch", "machine", "cpu", "threads")}
    except (OSError, ValueError, LookupError):
        known = {}
    return {**known, "nmt-async": __version__}


def _ending(run: Path) -> tuple[Ending | None, str]:
    """How the run ended and why.

    Runs of earlier versions only say in their log that they could not go on: they count as failed.
    """
    ending, reason = read_outcome(run)
    if ending is None and (lines := _log_lines(run / LOG)) and lines[-1].kind == "error":
        return "failed", lines[-1].text
    return ending, reason


def _wall_seconds(log: Path) -> float | None:
    """From the first line to the last of each sitting in the log, to the second; None without a log."""
    lines = _log_lines(log)
    starts = [
        number for number, line in enumerate(lines) if line.kind == "nmt-async" and line.text.startswith("Running")
    ]
    sittings = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
    if not sittings:
        return None
    return sum(max(0.0, (sitting[-1].time - sitting[0].time).total_seconds()) for sitting in sittings)


def _log_lines(log: Path) -> list[LogLine]:
    """All lines of ours; none if there is no log."""
    try:
        with open_ordinary(log) as file:
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in map(read_log_line, text.splitlines()) if line is not None]
