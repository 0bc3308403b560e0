"""The coordinator: the server, the dispatcher and the journal as one, which every kind of cluster drives.

A cluster only moves messages: it asks for a worker's next task, hands over pushes and reports deaths. What these
mean for batches and parameters is decided here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nmt_async.cluster.task import Computed, Task
from nmt_async.errors import Diverged, RunFailure
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import Push, Update, Verdict
from nmt_async.sync.server import ParameterServer
from nmt_async.text.dispatcher import DEATH_LIMIT, NOT_FINITE_LIMIT, Dispatcher
from nmt_async.text.plan import BatchId

SET_ASIDE_SHARE = 0.01
"""Share of an epoch's batches that may be set aside before the run stops."""


class TooManySetAside(RunFailure):
    """The model or the data is at fault, not a single batch."""


class TooManyNotFinite(TooManySetAside, Diverged):
    """Batches were set aside because their gradients are not finite."""


class Coordinator:
    """What happens to batches and parameters.

    Args:
        server: turns pushes into updates.
        dispatcher: knows where every batch is.
        record: takes the journal's events as they happen.
        warn: takes one sentence about a batch that is tried again or set aside.
    """

    def __init__(
        self,
        server: ParameterServer,
        dispatcher: Dispatcher,
        record: Callable[[Event], None],
        warn: Callable[[str], None],
    ) -> None:
        self.server = server
        self.dispatcher = dispatcher
        self.warn = warn
        self._journal = record
        self._recorded = 0  # events that stand, resumes not counted
        self._at: dict[int, Task] = {}

    def _record(self, event: Event) -> None:
        self._recorded += 1
        self._journal(event)

    def next_task(self, worker: int) -> Task | None:
        """The next batch for ``worker`` with its pull; None when it must wait for an update or the stream has ended."""
        if not self.server.may_start(worker):
            return None
        batch = self.dispatcher.take(worker)
        if batch is None:
            return None
        pull = self.server.start(worker, batch)
        plan = self.dispatcher.plan
        task = Task(batch, plan.parts(batch), pull.version, pull.buffer, plan.position(batch))
        self._at[worker] = task
        self._record(Event(Kind.STARTED, worker, batch, pull.version))
        return task

    def push(self, worker: int, computed: Computed, gradient: Tensor) -> Update | None:
        """A worker's gradient (size,) for the task it was given; the update that it completes, if any.

        The gradient may be overwritten once this returns.

        Raises:
            ValueError: the worker has no task, as when it pushes twice: nothing is changed.
            TooManySetAside: of the epoch, more than `SET_ASIDE_SHARE`.
        """
        if worker not in self._at:
            raise ValueError(f"worker {worker} has no task to push")
        task = self._at.pop(worker)
        push = Push(
            worker, task.batch, task.version, computed.tokens, computed.source_tokens, task.sentences,
            computed.loss, computed.gradient_norm, task.position, computed.parts,
        )  # fmt: skip
        answer = self.server.push(push, gradient)
        if answer.verdict is not Verdict.ACCEPTED:
            self._refuse(push, answer.verdict)
            return None
        batch = BatchId(*push.batch)
        self.dispatcher.accumulate(batch)
        self._record(Event(Kind.ACCUMULATED, worker, batch, push.version, push.tokens, push.parts))
        return self._applied(answer.update)

    def _applied(self, update: Update | None) -> Update | None:
        if update is not None:
            self.dispatcher.apply(BatchId(*push.batch) for push in update.pushes)
            self._record(Event(Kind.UPDATED, version=update.version, tokens=update.tokens))
        return update

    def _refuse(self, push: Push, verdict: Verdict) -> None:
        batch = BatchId(*push.batch)
        self._record(Event(Kind.REFUSED, push.worker, batch, push.version))
        if verdict is Verdict.STALE:
            self.dispatcher.give_back(batch)
        else:
            self._failed(batch, "not finite", "its gradient is not finite", NOT_FINITE_LIMIT)

    def died(self, worker: int) -> BatchId | None:
        """A worker is gone: its slot counts for nothing and its batch goes back. Returns that batch, if it had one.

        Raises:
            TooManySetAside: of the epoch, more than `SET_ASIDE_SHARE`.
        """
        task = self._at.pop(worker, None)
        self.server.abandon(worker)
        if task is None:
            return None
        batch = BatchId(*task.batch)
        self._record(Event(Kind.RETURNED, worker, batch, task.version))
        self._failed(batch, "death", f"worker {worker} died at it", DEATH_LIMIT)
        return batch

    def _failed(self, batch: BatchId, reason: str, what: str, limit: int) -> None:
        if not self.dispatcher.fail(batch, reason, limit):
            self.warn(f"batch {batch.number} of epoch {batch.epoch} is tried again: {what}.")
            return
        self._record(Event(Kind.SET_ASIDE, batch=batch))
        lines = ", ".join(str(index + 1) for index in self.dispatcher.plan.sentences(batch)[:20])
        self.warn(
            f"batch {batch.number} of epoch {batch.epoch} is set aside after {limit} tries: {what}; "
            f"it holds the prepared sentence pairs {lines} …"
        )
        aside = sum(1 for other in self.dispatcher.set_aside if other.epoch == batch.epoch)
        if aside > max(1, SET_ASIDE_SHARE * len(self.dispatcher.plan.epoch(batch.epoch))):
            raise (TooManyNotFinite if reason == "not finite" else TooManySetAside)(
                f"{aside} batches of epoch {batch.epoch} had to be set aside, the last because {what}: more than "
                f"{SET_ASIDE_SHARE:.0%} of the epoch; look at the pairs named above, and if gradients are not finite, "
                f"lower the learning rate."
            )

    def stop(self) -> Update | None:
        """Ends the run: batches that are out go back, what is accumulated is applied as a smaller update."""
        self._record(Event(Kind.STOPPED, version=self.server.version))
        for worker in sorted(self._at):
            task = self._at.pop(worker)
            self.server.abandon(worker)
            self.dispatcher.give_back(BatchId(*task.batch))
            self._record(Event(Kind.RETURNED, worker, task.batch, task.version))
        return self._applied(self.server.flush())

    def readmit(self, worker: int, batch: BatchId, version: int) -> None:
        """A worker holds the finished gradient of a batch begun on ``version``, as a simulated one does on resume."""
        self.dispatcher.take_back(batch, worker)
        self.server.readmit(worker, batch, version)
        plan = self.dispatcher.plan
        self._at[worker] = Task(batch, plan.parts(batch), version, 0, plan.position(batch))
        self._record(Event(Kind.READMITTED, worker, batch, version))

    def held(self) -> dict[int, list[int]]:
        """Of each worker that is at a batch: its epoch, number and version."""
        return {worker: [*task.batch, task.version] for worker, task in self._at.items()}

    @property
    def finished(self) -> bool:
        """True when a finite stream has no batch left that is waiting or out."""
        return self.dispatcher.exhausted

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: plain values, and tensors by name, not copied."""
        values, tensors = self.server.state()
        return {"server": values, "dispatcher": self.dispatcher.state(), "events": self._recorded}, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor], workers: int = 0) -> None:
        """Takes up where `state` was taken; what was out then is waiting.

        Args:
            workers: how many go on, for the journal (0: as many as before). A rule that sums as many pushes as the one
                before goes on with a round under way, whichever workers there were.
        """
        self.server.restore(values["server"], tensors)
        self.dispatcher.restore(values["dispatcher"])
        self._at = {}
        self._recorded = values["events"]
        self._journal(Event(Kind.RESUMED, workers, version=self.server.version, stands=self._recorded))
