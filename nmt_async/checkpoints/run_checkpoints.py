"""The checkpoints of a run: each is a model folder with the whole state of training beside the model.

``checkpoints/step-N`` holds what ``translate`` needs and the state that resuming needs (``training_state``);
``checkpoints/best-N`` holds a model only. A folder is written under another name, flushed to the disk and renamed;
``last`` and ``best`` name the newest and the best.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nmt_async.checkpoints.model_folder import save_model
from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages, read_state, write_state
from nmt_async.errors import Diverged, UserError
from nmt_async.model import FlatLayout, ModelConfiguration
from nmt_async.model.quantization_options import Quantization
from nmt_async.writing import HeldFolder, flush_entry, flush_folder, write_whole


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder is made of, besides parameters."""

    configuration: ModelConfiguration
    layout: FlatLayout
    source_vocabulary: Path
    target_vocabulary: Path
    quantization: Quantization | None = None

    def save(self, folder: Path, vector: Tensor) -> None:
        """Writes a model folder with the parameters ``vector`` (size,)."""
        named = self.layout.named(vector)
        save_model(
            folder, self.configuration, named, self.source_vocabulary, self.target_vocabulary,
            quantization=self.quantization,
        )  # fmt: skip


class Checkpoints:
    """Writes a run's checkpoints, one after another in a thread of its own, and finds them again.

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
        self.bytes_of_one = self.bytes_of_model = 4 * model.layout.size
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}
        self._relied_on: set[int] = set()
        self._held = HeldFolder(self.folder)
        for partial in self.folder.glob("*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        for replaced in self.folder.glob("*.replaced"):
            if replaced.with_suffix("").exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(replaced.with_suffix(""))

    def save(
        self, step: int, values: dict[str, Any], tensors: dict[str, Tensor], decodes: Tensor, best: list[int],
        first: Callable[[], object] = lambda: None,
    ) -> Future[None]:  # fmt: skip
        """Begins to write the checkpoint of ``step``; everything is copied before this returns.

        Args:
            values: plain values of the state.
            tensors: of the state, by name.
            decodes: the parameters (size,) to translate with.
            best: the steps of the best models so far, best first.
            first: what must be done before the checkpoint gets its name; if it raises an OSError, it gets none.

        Returns:
            Is done when the checkpoint is on the disk; its result is an OSError if it could not be written, and a
            Diverged if the state is not finite, and so not worth it.
        """
        self._wait_for_copies()
        copies = {name: self._copied(name, tensor) for name, tensor in tensors.items()}
        chosen = self._copied("", decodes)
        text = json.dumps({"size": self.model.layout.size, **values})
        self.bytes_of_one = len(text) + sum(tensor.nbytes for tensor in (chosen, *copies.values()))
        self._writing = self._writer.submit(self._write_state, step, text, copies, chosen, list(best), first)
        return self._writing

    def _wait_for_copies(self) -> None:
        """Until nothing is written from them any more."""
        if self._writing is not None:
            wait([self._writing])
            self._writing = None

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        """A copy in memory that is kept: new memory would take several times as long, while training stands still."""
        kept = self._copies.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            # A GPU writes several times faster into pages that stay where they are.
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[name] = kept
        return kept.copy_(tensor.detach())

    def save_best(self, step: int, vector: Tensor, ranking: list[int]) -> Future[None]:
        """Begins to write the model of ``step`` as a best one, as `save` does.

        Args:
            vector: its parameters (size,), which stay as they are meanwhile.
            ranking: the steps of the best models so far, best first. Others are removed, unless the newest
                checkpoint relies on them.
        """
        return self._writer.submit(self._write_best, step, vector, list(ranking))

    def _write_best(self, step: int, vector: Tensor, ranking: list[int]) -> None:
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

    def _write_state(
        self, step: int, text: str, tensors: dict[str, Tensor], decodes: Tensor, best: list[int],
        first: Callable[[], object],
    ) -> None:  # fmt: skip
        if not all(map(_is_finite, tensors.values())):
            raise Diverged(f"the parameters are not finite after update {step:,}.")

        def fill(folder: Path) -> None:
            self.model.save(folder, decodes)
            write_state(folder, text, tensors)
            first()

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
        self._held.check()
        partial, final = self.folder / f"{name}.partial", self.folder / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            fill(partial)
            flush_folder(partial)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._held.check()  # that it is gone says more than which of its files is not found
            if isinstance(error, OSError):
                raise
            raise OSError(str(error)) from None  # that library reports a full disk so
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        replaced = self.folder / f"{name}.replaced"
        if final.exists():
            os.rename(final, replaced)
        os.rename(partial, final)
        flush_entry(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def settle(self) -> None:
        """Until all that was begun has ended."""
        self._writer.submit(lambda: None).result()

    def close(self) -> None:
        """Nothing more is being written; what could not be is lost."""
        self._writer.shutdown()
        self._held.close()

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, oldest first."""
        return list(folders_by_update(self.folder, "step"))

    def newest(self, warn: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The state in the newest checkpoint that is whole: plain values and tensors; None if there is no checkpoint.

        Args:
            warn: takes a sentence for each damaged one that is passed over.

        Raises:
            UserError: there are checkpoints, and all are damaged; or another version wrote one.
        """
        steps = self.steps()
        for step in reversed(steps):
            folder = self.folder / f"step-{step}"
            found = checkpoint_damages(folder, self.model.layout.size)
            if not found:
                return read_state(folder)
            following = "; the checkpoint before it is used" if step != steps[0] else ""
            warn(f"{folder}: {'; '.join(found)}{following}.")
        if steps:
            raise UserError(f"{self.folder}: every checkpoint is damaged; choose another --out to begin anew.")
        return None


def _is_finite(tensor: Tensor) -> bool:
    """Whether each of its numbers is, in one pass without memory of its size."""
    return (
        not tensor.numel()
        or not tensor.is_floating_point()
        or bool(torch.isfinite(torch.linalg.vector_norm(tensor, torch.inf)))
    )
