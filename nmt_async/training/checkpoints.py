"""Checkpoints: a model folder with the whole state of training beside it.

``checkpoints/step-N`` holds what ``translate`` needs and ``state.safetensors`` with ``state.json``, which hold what
resuming needs; ``checkpoints/best-N`` holds a model only. A folder is written under another name, flushed to the
disk and renamed; ``last`` and ``best`` name the newest and the best. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nmt_async.decoding.model_folder import load_model, save_model
from nmt_async.errors import UserError
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.flat import FlatLayout
from nmt_async.training.run_folder import write_whole

STATE = "state.json"
TENSORS = "state.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder is made of, besides parameters."""

    configuration: ModelConfiguration
    layout: FlatLayout
    source_vocabulary: Path
    target_vocabulary: Path

    def save(self, folder: Path, vector: Tensor) -> None:
        """Writes a model folder with the parameters ``vector`` (size,)."""
        named = self.layout.named(vector)
        save_model(folder, self.configuration, named, self.source_vocabulary, self.target_vocabulary)


class Checkpoints:
    """Writes a run's checkpoints, in a thread of its own, and finds them again.

    Args:
        run: the run's folder.
        model: how to write a model.
        keep_last: newest checkpoints that are kept.
        keep_best: best models that are kept.
    """

    def __init__(self, run: Path, model: ModelFiles, keep_last: int, keep_best: int) -> None:
        self.run = run
        self.folder = run / "checkpoints"
        self.model = model
        self.keep_last = keep_last
        self.keep_best = keep_best
        self._writing: threading.Thread | None = None
        self._error: BaseException | None = None
        for partial in self.folder.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and self._writing.is_alive()

    def save(self, step: int, values: dict[str, Any], tensors: dict[str, Tensor], decodes: Tensor) -> None:
        """Begins to write the checkpoint of ``step``; everything is copied before this returns.

        Args:
            values: plain values of the state.
            tensors: of the state, by name.
            decodes: the parameters (size,) to translate with.

        Raises:
            OSError: writing the one before failed.
        """
        self.wait()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        chosen = decodes.detach().cpu().clone()
        text = json.dumps({"format": FORMAT, "size": self.model.layout.size, **values})
        self._begin(lambda: self._write_state(step, text, copies, chosen))

    def save_best(self, step: int, vector: Tensor, ranking: list[int]) -> None:
        """Writes the model of ``step`` as a best one before this returns.

        Args:
            vector: its parameters (size,).
            ranking: the steps of the best models so far, best first; others are removed.
        """
        self.wait()
        self._write(f"best-{step}", lambda folder: self.model.save(folder, vector))
        write_whole(self.run / "best", f"checkpoints/best-{ranking[0]}")
        keep = {f"best-{other}" for other in ranking[: self.keep_best]}
        for folder in self.folder.glob("best-*"):
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _write_state(self, step: int, text: str, tensors: dict[str, Tensor], decodes: Tensor) -> None:
        def fill(folder: Path) -> None:
            self.model.save(folder, decodes)
            save_file(tensors, folder / TENSORS)
            digest = _sha256(folder / TENSORS)
            write_whole(folder / STATE, json.dumps({**json.loads(text), "sha256": digest}))

        self._write(f"step-{step}", fill)
        write_whole(self.run / "last", f"checkpoints/step-{step}")
        for older in self.steps()[: -self.keep_last]:
            shutil.rmtree(self.folder / f"step-{older}", ignore_errors=True)

    def _write(self, name: str, fill: Callable[[Path], None]) -> None:
        partial, final = self.folder / f"{name}.partial", self.folder / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            fill(partial)
            for path in partial.iterdir():
                _flush(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if final.exists():
            shutil.rmtree(final)
        os.rename(partial, final)
        _flush(self.folder)

    def _begin(self, write: Callable[[], None]) -> None:
        def body() -> None:
            try:
                write()
            except BaseException as error:
                self._error = error

        self._writing = threading.Thread(target=body, name="checkpoint")
        self._writing.start()

    def wait(self) -> None:
        """Until the one being written is on the disk.

        Raises:
            OSError: it could not be written, or the one before.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, oldest first."""
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def newest(self, warn: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The state in the newest checkpoint that is whole: plain values and tensors; None if there is no checkpoint.

        Args:
            warn: takes a sentence for each damaged one that is passed over.

        Raises:
            UserError: there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            folder = self.folder / f"step-{step}"
            problem = self._problem(folder)
            if problem is None:
                return json.loads((folder / STATE).read_text(encoding="utf-8")), load_file(folder / TENSORS)
            warn(f"{folder} is damaged ({problem}); the checkpoint before it is used.")
        if steps:
            raise UserError(f"{self.folder}: every checkpoint is damaged; choose another --out to begin anew.")
        return None

    def _problem(self, folder: Path) -> str | None:
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                return f"{STATE} has format {state['format']}, this version reads {FORMAT}"
            if state["size"] != self.model.layout.size:
                return f"its model has {state['size']} parameters"
            if state["sha256"] != _sha256(folder / TENSORS):
                return f"the SHA-256 of {TENSORS} is not the one in {STATE}"
            load_model(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, UserError) as error:
            return str(error).rstrip(".")
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
