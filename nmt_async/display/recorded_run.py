"""A run as its folder tells of it, read on while a trainer writes there: what ``watch`` and the picture show."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from nmt_async.cluster.profile import MOST_WORKERS
from nmt_async.display.marian_log import LogLine, read_log_line
from nmt_async.display.reports import MachinesReport, RunTitle, TrainReport, ValidReport, worker_places
from nmt_async.display.state import DisplayState, Message
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import model_title
from nmt_async.options import load_yaml
from nmt_async.quantity import Quantity, Unit, parse_quantity
from nmt_async.reading import json_object, open_ordinary, read_text, within
from nmt_async.sync.rules import Waiting, rule_for

ALL_UNITS: tuple[Unit, ...] = ("updates", "tokens", "epochs", "hours", "minutes")
Report = TrainReport | ValidReport | MachinesReport
KINDS: dict[str, type[TrainReport] | type[ValidReport] | type[MachinesReport]] = {
    "train": TrainReport, "valid": ValidReport, "machines": MachinesReport,
}  # fmt: skip

News = RunTitle | TrainReport | ValidReport | Message


class RecordedRun:
    """What a run's folder says of it, in the form that a display shows.

    Args:
        folder: of the run.
        until: later updates are passed over.

    Attributes:
        state: all that has been read; its clock is the seconds of training.
        last_line: of ``train.log``, None before there is one.

    Raises:
        UserError: it is not the folder of a run.
    """

    def __init__(self, folder: Path, until: int | None = None) -> None:
        self.folder = folder
        self.until = until
        self.last_line: LogLine | None = None
        self.state = DisplayState()
        self._configured: tuple[int, int] | None = None
        self._metrics = GrowingFile(folder / "metrics.jsonl")
        self._log = GrowingFile(folder / "train.log")
        self._begun = False
        self._line = 0
        self._seen: set[int] = set()
        self._stop: Quantity | None = None
        self._machines: MachinesReport | None = None
        if not (folder / "config.yaml").is_file():
            inner = sorted(folder.glob("*/config.yaml"))
            there = f"; {inner[0].parent} is one" if inner else ""
            raise UserError(f"{folder} is not the folder of a run (no config.yaml in it){there}.")

    def read(self) -> list[News]:
        """Takes up what was written since the last time; what of it is new, in the order in which it happened.

        A run that is resumed writes the reports that still stand into a new file: they are no news.

        Raises:
            UserError: the folder's files are not those of a run.
        """
        try:
            anew, lines = self._metrics.news()
            said = self._messages(self._log.news()[1])
            self._machines = self._latest_machines(lines) or self._machines
            title = self._title(lines)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be read any more ({error.strerror or error}).") from None
        news: list[News] = []
        if title is not None:
            self.state = replace(self.state, title=title)
            news.append(title)
        if anew or not self._begun:
            self._begin()
        for line in lines:
            report = self._report(line)
            if self.until is not None and report.update > self.until:
                continue
            if isinstance(report, MachinesReport):  # the title tells of the latest
                continue
            due = 0
            if isinstance(report, TrainReport):
                due = max((place for place, (_, before) in enumerate(said, 1) if before <= report.update), default=0)
            news += self._told(said[:due])
            del said[:due]
            self._take_up(report)
            if hash(line) not in self._seen:
                self._seen.add(hash(line))
                news.append(report)
        return [*news, *self._told(said)]

    def _begin(self) -> None:
        """The state before the first report."""
        assert self.state.title is not None
        self._begun, self._line = True, 0
        before = DisplayState(messages=self.state.messages).begun(self.state.title)
        self.state = before.progressed(None if self._stop is None else 0.0, 0)

    def _told(self, said: list[tuple[Message, float]]) -> Iterator[Message]:
        for message, _ in said:
            self.state = self.state.told(message)
            yield message

    def _take_up(self, report: TrainReport | ValidReport) -> None:
        if isinstance(report, ValidReport):
            self.state = self.state.validated(report)
            return
        stop = self._stop
        share = min(1.0, _amount(report, stop) / stop.amount) if stop is not None and stop.amount else None
        self.state = self.state.at(report.time).progressed(share, report.update).trained(report)

    def _report(self, line: str) -> Report:
        self._line += 1
        return _report(line, self._metrics.path, self._line)

    def _messages(self, lines: list[str]) -> list[tuple[Message, float]]:
        """The sentences among the log's new lines, each with the update of the first report that is behind it."""
        read = [line for line in map(read_log_line, lines) if line is not None]
        if read:
            self.last_line = read[-1]
        said: list[tuple[Message, float]] = []
        before = math.inf
        for line in reversed(read):
            if line.kind == "train" and line.update is not None:
                before = line.update
            if line.kind in ("note", "warn", "error") or (line.kind == "nmt-async" and line.text.startswith("Running")):
                said.append((Message(line.text, line.kind in ("warn", "error")), before))
        return said[::-1]

    def _latest_machines(self, lines: list[str]) -> MachinesReport | None:
        """Who shares the run, as the last of the lines says that tells of it; None if none does."""
        for line in reversed(lines):
            if '"machines"' in line:
                with contextlib.suppress(UserError):  # which is raised when its turn comes
                    report = _report(line, self._metrics.path, 0)
                    if isinstance(report, MachinesReport) and (self.until is None or report.update <= self.until):
                        return report
        return None

    def _title(self, lines: list[str]) -> RunTitle | None:
        """The title if it is new: the first time, or because the run was resumed with other options or machines."""
        path = self.folder / "config.yaml"
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._configured:
            title = self.state.title
            if title is not None and title.parameters is None:  # it has saved no model so far
                title = replace(title, parameters=saved_parameters(self.folder))
                self.state = replace(self.state, title=title)
            if title is None or title.machines == self._machines:
                return None
            return replace(title, machines=self._machines)
        config = load_yaml(path)
        try:
            stop = None if config["stop-after"] is None else parse_quantity(str(config["stop-after"]), ALL_UNITS)
            workers = _count(config["workers"] or _workers(lines))
            title = replace(_built_title(self.folder, config, stop, workers), machines=self._machines)
        except (KeyError, TypeError, ValueError, UserError) as error:
            problem = str(error).removesuffix(".")
            raise UserError(f"{path} is not the configuration of a run ({problem}).") from None
        self._configured, self._stop = stamp, stop
        return title if title != self.state.title else None


def recorded_state(folder: Path, update: int | None = None) -> DisplayState:
    """What the display showed when the run's report of ``update`` (by default the last) had come, messages aside.

    Raises:
        UserError: ``folder`` is not the folder of a run, or has reported nothing until then.
    """
    run = RecordedRun(folder, update)
    run.read()
    if run.state.report is None:
        until = "" if update is None else f" until update {update:,}"
        raise UserError(f"{folder / 'metrics.jsonl'} holds no report of training{until}; there is nothing to show yet.")
    return replace(run.state, messages=())


def read_reports(path: Path) -> list[Report]:
    """The reports of a ``metrics.jsonl``, in order; a torn last line, as a crash leaves it, is passed over.

    Raises:
        UserError: a line is not a report.
        OSError: the file cannot be read.
    """
    with open_ordinary(path) as file:
        lines = file.read().split(b"\n")[:-1]
    return [_report(line.decode("utf-8", errors="replace"), path, number) for number, line in enumerate(lines, 1)]


def _report(line: str, path: Path, number: int) -> Report:
    try:
        values = json_object(line)
        return KINDS[values["kind"]].from_mapping(values)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        problem = shown(str(error)) if isinstance(error, KeyError) else error
        raise UserError(f"{path}, line {number}: this is not a report of training or validation ({problem}).") from None


def _amount(report: TrainReport, quantity: Quantity) -> float:
    """How far the run was, in the quantity's unit."""
    in_units = {"updates": report.update, "tokens": report.target_tokens, "epochs": report.epochs}
    in_units |= {"hours": report.time / 3600, "minutes": report.time / 60}
    return float(in_units[quantity.unit])


def _built_title(run: Path, config: dict[str, Any], stop: Quantity | None, workers: int) -> RunTitle:
    mode, devices = str(config["sync-mode"]), str(config["devices"]).split(",")
    accumulate = None if config["accumulate"] is None else _count(config["accumulate"])
    rule = rule_for(mode, workers, accumulate, Waiting.said_by(config))
    dealt = [devices[number % len(devices)].strip() for number in range(workers)]
    places = worker_places(dealt, str(config.get("cluster", "processes")), str(config.get("profile") or ""))
    model = model_title(str(config.get("model", "transformer")), str(config["preset"]))
    name, parameters = run.resolve().name, saved_parameters(run)
    return RunTitle(name, mode, rule.pushes, places, model, parameters, stop, most_pushes=rule.most_pushes)


def _count(value: Any) -> int:
    """A number of workers or of pushes, as a configuration gives it.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 1 <= value <= MOST_WORKERS:
        raise ValueError(f"{shown(value)} is not a number of workers or pushes")
    return value


def _workers(lines: list[str]) -> int:
    """How many workers the reports name, where the configuration does not say."""
    counts = [1]
    for line in lines:
        try:
            counts.append(len(json_object(line)["waiting_share"]))
        except (ValueError, LookupError, TypeError):
            continue
    return max(counts)


def saved_parameters(run: Path) -> int | None:
    """How many parameters the run's model has, None if it has saved none."""
    for pointer in ("best", "last"):
        try:
            folder = within(run, read_text(run / pointer).strip())
            with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
                shapes: list[list[int]] = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
                return sum(map(math.prod, shapes))
        except (OSError, ValueError, SafetensorError):
            continue
    return None


class GrowingFile:
    """Gives each line once, when it is whole; a line without its end is kept until that comes.

    Args:
        path: need not be there yet, and may be replaced by another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._torn = b""

    def news(self) -> tuple[bool, list[str]]:
        """The lines that are new since the last time; True if they are all of a file that has taken the other's place.

        Raises:
            OSError: the file cannot be read.
        """
        anew = self._replaced()
        if anew:
            self.close()
        if self._file is None:
            try:
                self._file = open_ordinary(self.path)
            except FileNotFoundError:
                return anew, []
        whole, newline, self._torn = (self._torn + self._file.read()).rpartition(b"\n")
        return anew, whole.decode("utf-8", errors="replace").split("\n") if newline else []

    def _replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or there.st_size < self._file.tell()

    def close(self) -> None:
        """The next reading begins at the file's start."""
        if self._file is not None:
            self._file.close()
        self._file, self._torn = None, b""
