"""Runs settings, several side by side, each by the very ``nmt-async train`` command that its result names.

A finished setting leaves a result and is not run again; one that was broken off goes on from its checkpoint. The folder
of a study holds ``runs/``, ``results/`` and ``logs/`` by setting.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from nmt_async.errors import Diverged, RunFailure, UserError, shown
from nmt_async.process.child import thread_environment
from nmt_async.process.fork_server import die_with_parent
from nmt_async.reading import read_json_lines, read_object, read_text
from nmt_async.study.collect import collect
from nmt_async.study.result import Result
from nmt_async.study.setting import Setting, typed
from nmt_async.text.prepared import PreparedData
from nmt_async.training.cluster_options import available_cores
from nmt_async.training.interruptions import Interrupted, StopSignals
from nmt_async.training.options import stop_quantity
from nmt_async.writing import write_whole

STUDY = "study.json"


@dataclass(frozen=True)
class StudyFolder:
    """Where everything of a study lies.

    Attributes:
        path: of it.
        results: where finished settings' results are kept, ``path/results`` unless they are kept elsewhere.
    """

    path: Path
    results: Path

    def run(self, setting: Setting) -> Path:
        """The run of a setting."""
        return self.path / "runs" / setting.name

    def log(self, setting: Setting) -> Path:
        """What its command said."""
        return self.path / "logs" / f"{setting.name}.log"

    def seconds(self, setting: Setting) -> Path:
        """How long its command has run in earlier sittings."""
        return self.path / "logs" / f"{setting.name}.seconds"

    def result_file(self, setting: Setting) -> Path:
        """Its result."""
        return self.results / f"{setting.name}.json"

    def result(self, setting: Setting, data: str) -> Result | None:
        """The result of a finished setting, None if it is not finished.

        Args:
            data: fingerprint of the prepared data.

        Raises:
            UserError: the result there is of another setting or of other data.
        """
        path = self.result_file(setting)
        if not path.exists():
            return None
        result = Result.read(path)
        if result.setting != setting:
            raise UserError(
                f"{path} is of other options than {shown(setting.condition)} has now; choose another folder."
            )
        if result.data != data:
            raise UserError(f"{path} was made on other data; choose another folder for this data.")
        return result

    def begin(self, kind: str, data: str) -> TextIO:
        """Makes the folder, or takes up the study in it; the lock that is held until it is closed.

        Args:
            kind: what writes it: ``compare``, or a study's name.
            data: fingerprint of the prepared data.

        Raises:
            UserError: it is another study's, or another process is at it.
        """
        marker = self.path / STUDY
        if marker.exists():
            try:
                before = read_object(marker)
                same = before["kind"] == kind and before["data"] == data
            except (OSError, ValueError, LookupError):
                raise UserError(f"{marker} cannot be read; choose another --out.") from None
            if not same:
                raise UserError(f"--out {self.path}: this folder holds another comparison; choose another.")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"--out {self.path}: something else is in this place; choose another.")
        try:
            for part in (self.path / "runs", self.path / "logs", self.results):
                part.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
            write_whole(marker, json.dumps({"kind": kind, "data": data}))
        except OSError as error:
            raise RunFailure(f"--out {self.path}: the folder cannot be written ({error.strerror or error}).") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise UserError(f"--out {self.path}: another process is writing this comparison; wait for it.") from None
        return lock


TRAIN = [sys.executable, "-c", "from nmt_async.cli.start import main; main()", "train"]
TICK = 0.5
"""Seconds between two looks at the running settings."""
PATIENCE = 60.0
"""Seconds that a setting has to save itself when the study is interrupted."""
DONE = {
    "updates": ("update", 1), "tokens": ("target_tokens", 1), "epochs": ("epochs", 1), "minutes": ("time", 60),
    "hours": ("time", 3600),
}  # fmt: skip
"""Where a report says how far a run is, by the unit of its budget, and how much of that is one unit."""


class StudyDisplay(Protocol):
    """Shows how far a study is."""

    def begun(self, setting: Setting) -> None:
        """A setting is begun, or gone on with."""

    def at(self, setting: Setting, share: float) -> None:
        """How much of it is done, 0 to 1."""

    def finished(self, setting: Setting, result: Result) -> None:
        """A setting has its result, from now or from an earlier sitting."""

    def failed(self, setting: Setting, why: str) -> None:
        """A setting could not be finished; the others go on."""

    def close(self) -> None:
        """Nothing more will be shown."""


@dataclass
class Job:
    """A setting that is running."""

    setting: Setting
    process: subprocess.Popen[bytes]
    begin: float
    earlier: float


class Runner:
    """Runs the settings of one study.

    Args:
        folder: of it.
        data: the prepared folder.
        fingerprint: of that.
        jobs: settings side by side.
        threads: of each that is simulated; real workers share the cores as ``train`` deals them.
        display: shows what happens.
    """

    def __init__(
        self, folder: StudyFolder, data: Path, fingerprint: str, jobs: int, threads: int,
        display: StudyDisplay,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.data = data
        self.fingerprint = fingerprint
        self.jobs = jobs
        self.threads = threads
        self.display = display
        self._running: list[Job] = []
        self._results: dict[str, Result] = {}
        self._failed: list[str] = []

    def run(self, settings: Sequence[Setting]) -> list[Result]:
        """Runs those that have no result yet; the results of all that have one then, in their order.

        Raises:
            Interrupted: a signal came; what was running is saved.
            RunFailure: a setting failed; the others are finished.
        """
        waiting = []
        for setting in settings:
            result = self.folder.result(setting, self.fingerprint)
            if result is None:
                waiting.append(setting)
            else:
                self._results[setting.name] = result
                self.display.finished(setting, result)
        with StopSignals() as signals:
            try:
                while (waiting or self._running) and not signals.number:
                    while waiting and len(self._running) < self.jobs:
                        self._start(waiting.pop(0))
                    time.sleep(TICK)
                    self._look()
            finally:
                self._end_running()
            if signals.number:
                raise Interrupted(
                    "interrupted; what was running is saved, give the same command to go on.", signals.number
                )
        if self._failed:
            raise RunFailure(f"{len(self._failed)} of {len(settings)} settings failed: {'; '.join(self._failed)}.")
        return [self._results[setting.name] for setting in settings]

    def _start(self, setting: Setting) -> None:
        seconds = self.folder.seconds(setting)
        command = [*TRAIN, str(self.data), *self._arguments(setting)]
        with self.folder.log(setting).open("ab") as log, thread_environment(self.threads):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        earlier = read_seconds(seconds)
        self._running.append(Job(setting, process, time.monotonic(), earlier))
        self.display.begun(setting)

    def _arguments(self, setting: Setting) -> list[str]:
        words = typed({**setting.options, "seed": setting.seed})
        if setting.options.get("cluster") == "simulated":
            words += ["--cpu-threads", str(self.threads)]
        return [*words, "--out", str(self.folder.run(setting))]

    def command(self, setting: Setting) -> str:
        """The command that makes the setting's run, as one types it."""
        return shlex.join(["nmt-async", "train", str(self.data), *self._arguments(setting)])

    def _look(self) -> None:
        for job in list(self._running):
            if job.process.poll() is None:
                self.display.at(job.setting, self._share(job.setting))
            else:
                self._running.remove(job)
                self._count_seconds(job)
                self._take(job)

    def _share(self, setting: Setting) -> float:
        try:
            values = read_json_lines(self.folder.run(setting) / "metrics.jsonl")[-1]
        except (OSError, IndexError):
            return 0.0
        budget = stop_quantity(str(setting.options["stop-after"]))
        key, unit = DONE[budget.unit]
        try:
            return min(1.0, float(values.get(key, 0)) / unit / budget.amount)
        except (TypeError, ValueError, OverflowError):  # no figure of ours
            return 0.0

    def _count_seconds(self, job: Job) -> float:
        total = job.earlier + time.monotonic() - job.begin
        write_whole(self.folder.seconds(job.setting), f"{total:.1f}")
        return total

    def _take(self, job: Job) -> None:
        """A setting's command has ended."""
        setting, code = job.setting, job.process.returncode
        where = f"{setting.name} (exit code {code}, see {self.folder.log(setting)})"
        if code not in (0, Diverged.exit_code):
            self._fail(setting, where, last_words(self.folder.log(setting)))
            return
        try:
            collected = collect(self.folder.run(setting))
        except UserError as error:
            self._fail(setting, where, str(error))
            return
        result = dataclasses.replace(
            collected, setting=setting, command=self.command(setting), folder=f"runs/{setting.name}",
            wall_seconds=read_seconds(self.folder.seconds(setting)),
            diverged=collected.diverged or (last_words(self.folder.log(setting)) if code else ""),
        )  # fmt: skip
        result.write(self.folder.result_file(setting))
        self._results[setting.name] = result
        self.display.finished(setting, result)

    def _fail(self, setting: Setting, where: str, why: str) -> None:
        self._failed.append(where)
        self.display.failed(setting, why or where)

    def _end_running(self) -> None:
        """Lets what is running save itself."""
        for job in self._running:
            job.process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + PATIENCE
        for job in self._running:
            try:
                job.process.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            self._count_seconds(job)
        self._running = []


def run_all(
    folder: StudyFolder, kind: str, data: PreparedData, settings: Sequence[Setting], jobs: int, display: StudyDisplay
) -> list[Result]:
    """Runs the settings of a study in its folder, with all cores; see `Runner.run`.

    Args:
        kind: of study, as in `StudyFolder.begin`.
    """
    lock = folder.begin(kind, data.fingerprint)
    try:
        threads = max(1, available_cores() // jobs)
        return Runner(folder, data.folder, data.fingerprint, jobs, threads, display).run(settings)
    finally:
        display.close()
        lock.close()


def read_seconds(path: Path) -> float:
    """How long a setting's command ran in earlier sittings; 0 where that is not known."""
    try:
        seconds = float(read_text(path))
    except (OSError, ValueError):
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def last_words(log: Path) -> str:
    """The last line of a command's log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def side_by_side(cluster: str, workers: int, cores: int) -> int:
    """Settings that a machine runs at once: one a core if simulated, else as many as have a core for each worker."""
    return max(1, cores if cluster == "simulated" else cores // workers)
