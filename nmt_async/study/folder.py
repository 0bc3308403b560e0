"""The folder of a study: ``runs/``, ``results/`` and ``logs/`` by setting, and who may write it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nmt_async.errors import RunFailure, UserError, shown
from nmt_async.reading import read_object
from nmt_async.study.result import Result
from nmt_async.study.setting import Setting
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


def check_names(settings: Sequence[Setting]) -> None:
    """Every setting must have a name of its own.

    Raises:
        UserError: two have the same.
    """
    names: set[str] = set()
    for setting in settings:
        if setting.name in names:
            raise UserError(f"{shown(setting.condition)} with seed {setting.seed} is asked for twice.")
        names.add(setting.name)
