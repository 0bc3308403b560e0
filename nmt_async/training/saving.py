"""Saves of a run that goes on meanwhile: what could not be written is told, and tried again soon.

After a failure only parameters that gave finite gradients are saved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from torch import Tensor

from nmt_async.checkpoints.run_checkpoints import Checkpoints
from nmt_async.sync.journal import Event, Kind
from nmt_async.training.interruptions import MayFail
from nmt_async.writing import free_bytes

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 320.0
"""Seconds before a failed save is tried again; they double with each failure in a row."""

MEBIBYTE = 2**20


class StateOfRun(NamedTuple):
    """What a checkpoint stores.

    Attributes:
        updates: made until then.
        values: plain.
        tensors: by name.
        decoding: the parameters (size,) of its model.
    """

    updates: int
    values: dict[str, Any]
    tensors: dict[str, Tensor]
    decoding: Tensor

    def copy(self) -> StateOfRun:
        """One that stays as it is, in the CPU's memory."""
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in self.tensors.items()}
        decoding = self.decoding.to("cpu", copy=True)
        return StateOfRun(self.updates, copy.deepcopy(self.values), tensors, decoding)


class Soundness:
    """Whether the newest parameters on which a gradient was computed gave a finite one, and so are worth saving."""

    def __init__(self) -> None:
        self._finite = self._not_finite = -1

    def record(self, event: Event) -> None:
        """Something happened to a batch. What a slow worker computed on an older version says nothing of a newer."""
        if event.kind is Kind.ACCUMULATED:
            self._finite = max(self._finite, event.version)
        elif event.kind is Kind.NOT_FINITE:
            self._not_finite = max(self._not_finite, event.version)

    @property
    def sound(self) -> bool:
        """Whether they are."""
        return self._not_finite <= self._finite


class Saving:
    """Begins saves, and hears how they ended.

    Args:
        checkpoints: writes them.
        may_fail: tells what fails.
        clock: seconds of any steady clock.
    """

    def __init__(self, checkpoints: Checkpoints, may_fail: MayFail, clock: Callable[[], float]) -> None:
        self.checkpoints = checkpoints
        self._may_fail = may_fail
        self._clock = clock
        self._checkpoint: Future[None] | None = None
        self._models: dict[int, Future[None]] = {}
        self._unsaved: dict[int, Tensor] = {}
        self._owed = False
        self._pause = FIRST_PAUSE
        self._again = 0.0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._checkpoint is not None

    @property
    def due(self) -> bool:
        """Whether a checkpoint that failed should be tried again, as that of now."""
        return self._owed and self._clock() >= self._again

    def begin(self, state: StateOfRun, best: list[int], first: Callable[[], object] = lambda: None) -> None:
        """Begins to write a checkpoint; see `Checkpoints.save`."""
        self._checkpoint = self.checkpoints.save(*state, best, first)

    def keep(self, step: int, parameters: Tensor, best: list[int]) -> None:
        """Begins to write the model of ``step``, one of the ``best``, from a copy of ``parameters`` (size,)."""
        self._unsaved[step] = parameters.clone()
        self._write_model(step, best)

    def _write_model(self, step: int, best: list[int]) -> None:
        self._models[step] = self.checkpoints.save_best(step, self._unsaved[step], best)

    def hear(self, best: list[int]) -> None:
        """Takes in what has ended; models among the ``best`` that could not be saved are tried again if it is time."""
        worked = True
        for step in [step for step, model in self._models.items() if model.done()]:
            worked &= self._end_model(step)
        if self._checkpoint is not None and self._checkpoint.done():
            worked &= self._end_checkpoint(self._checkpoint)
        if not worked:
            self._again = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif not self._owed and not self._unsaved:
            self._pause = FIRST_PAUSE
        self._unsaved = {step: vector for step, vector in self._unsaved.items()
                         if step in best or step in self._models}  # fmt: skip
        if self._clock() >= self._again:
            for step in self._unsaved.keys() - self._models.keys():
                self._write_model(step, best)

    def _end_model(self, step: int) -> bool:
        saved = self._may_fail(
            "saving a best model", self._models.pop(step).result, lambda: self._hint(self.checkpoints.bytes_of_model)
        )
        if saved:
            del self._unsaved[step]
        return saved

    def _end_checkpoint(self, checkpoint: Future[None]) -> bool:
        self._checkpoint = None
        saved = self._may_fail(
            "writing a checkpoint", checkpoint.result, lambda: self._hint(self.checkpoints.bytes_of_one)
        )
        self._owed = not saved
        return saved

    def _hint(self, needed: int) -> str:
        again = f"it is tried again in {self._pause:.0f} seconds or with the next one; "
        try:
            free = free_bytes(self.checkpoints.folder)
        except OSError:
            return again
        room = f"it needs {max(needed / MEBIBYTE, 0.1):,.1f} MiB and {free / MEBIBYTE:,.1f} MiB are free; "
        steps = self.checkpoints.steps()
        return room + again + (f"step-{steps[-1]} stays the last good checkpoint; " if steps else "")

    def settle(self, best: list[int]) -> None:
        """Until nothing is being written; models that could not be saved are tried once more."""
        for _ in range(3):  # to hear what is under way, to try again, and to hear of that
            self.checkpoints.settle()
            self.hear(best)
            self._again = 0.0

    def result(self) -> None:
        """Until the checkpoint begun last is on the disk.

        Raises:
            OSError: it could not be written.
        """
        assert self._checkpoint is not None
        checkpoint, self._checkpoint = self._checkpoint, None
        checkpoint.result()
