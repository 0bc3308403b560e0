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
from nmt_async.text.building import flush_entry, flush_folder
from nmt_async.writing import write_whole

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
        self._relied_on: set[int] = set()
        for partial in self.folder.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        for replaced in self.folder.glob("*.replaced"):
            if replaced.with_suffix("").exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(replaced.with_suffix(""))

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._writing is not None and self._writing.is_alive()

    def save(
        self, step: int, values: dict[str, Any], tensors: dict[str, Tensor], decodes: Tensor, best: list[int]
    ) -> None:
        """Begins to write the checkpoint of ``step``; everything is copied before this returns. See `wait`.

        Args:
            values: plain values of the state.
            tensors: of the state, by name.
            decodes: the parameters (size,) to translate with.
            best: the steps of the best models so far, best first.
        """
        self._join()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        chosen = decodes.detach().cpu().clone()
        text = json.dumps({"format": FORMAT, "size": self.model.layout.size, **values})
        self._begin(lambda: self._write_state(step, text, copies, chosen, list(best)))

    def save_best(self, step: int, vector: Tensor, ranking: list[int]) -> None:
        """Writes the model of ``step`` as a best one before this returns.

        Args:
            vector: its parameters (size,).
            ranking: the steps of the best models so far, best first. Others are removed, unless the newest
                checkpoint relies on them.

        Raises:
            OSError: it could not be written.
        """
        self._join()
        self._write(f"best-{step}", lambda folder: self.model.save(folder, vector))
        self._settle_best(ranking)

    def rely_on(self, step: int, best: list[int]) -> None:
        """The run goes on from the checkpoint of ``step``, to which ``best`` were the best models."""
        self._relied_on = set(best)
        write_whole(self.run / "last", f"checkpoints/step-{step}")
        self._settle_best(best)

    def _settle_best(self, ranking: list[int]) -> None:
        there = [step for step in ranking if (self.folder / f"best-{step}").is_dir()]
        if not there:  # they could not be written: the best one that was stays
            return
        write_whole(self.run / "best", f"checkpoints/best-{there[0]}")
        keep = {f"best-{step}" for step in (*there[: self.keep_best], *self._relied_on)}
        for folder in self.folder.glob("best-*"):
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _write_state(self, step: int, text: str, tensors: dict[str, Tensor], decodes: Tensor, best: list[int]) -> None:
        def fill(folder: Path) -> None:
            self.model.save(folder, decodes)
            save_file(tensors, folder / TENSORS)
            written = {"sha256": _digest(text, folder / TENSORS), "state": json.loads(text)}
            write_whole(folder / STATE, json.dumps(written))

        self._write(f"step-{step}", fill)
        write_whole(self.run / "last", f"checkpoints/step-{step}")
        # Later ones are of a future that a resume from an earlier checkpoint made void.
        keep = [other for other in self.steps() if other <= step][-self.keep_last :]
        for other in self.steps():
            if other not in keep:
                shutil.rmtree(self.folder / f"step-{other}", ignore_errors=True)
        self._relied_on = set(best)
        self._settle_best(best)

    def _write(self, name: str, fill: Callable[[Path], None]) -> None:
        partial, final = self.folder / f"{name}.partial", self.folder / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            fill(partial)
            flush_folder(partial)
        except SafetensorError as error:  # how that library reports a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(str(error)) from None
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        replaced = self.folder / f"{name}.replaced"
        if final.exists():
            os.rename(final, replaced)
        os.rename(partial, final)
        flush_entry(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

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
            OSError: it could not be written, or one before of which `wait` has not told yet.
        """
        self._join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Nothing more is being written; what could not be is lost."""
        self._join()

    def _join(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None

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
                written = json.loads((folder / STATE).read_text(encoding="utf-8"))
                return written["state"], load_file(folder / TENSORS)
            following = "; the checkpoint before it is used" if step != steps[0] else ""
            warn(f"{folder} is damaged ({problem}){following}.")
        if steps:
            raise UserError(f"{self.folder}: every checkpoint is damaged; choose another --out to begin anew.")
        return None

    def _problem(self, folder: Path) -> str | None:
        try:
            written = json.loads((folder / STATE).read_text(encoding="utf-8"))
            state = written["state"]
            if state["format"] != FORMAT:
                return f"{STATE} has format {state['format']}, this version reads {FORMAT}"
            if state["size"] != self.model.layout.size:
                return f"its model has {state['size']} parameters"
            if written["sha256"] != _digest(json.dumps(state), folder / TENSORS):
                return f"the SHA-256 of {STATE} and {TENSORS} is not the one noted"
            load_model(folder)
        except (KeyError, TypeError, AttributeError):
            return f"{STATE} is not a state"
        except (OSError, ValueError, RecursionError, SafetensorError, UserError) as error:
            return str(error).removesuffix("; use another checkpoint.")
        return None


def _digest(text: str, tensors: Path) -> str:
    """SHA-256 of the state's values and of its tensors' file together."""
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(text.encode())
    return digest.hexdigest()
