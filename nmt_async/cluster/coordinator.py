"""The coordinator: the server, the ledger of batches and the journal as one, which every kind of cluster drives.

A cluster only moves messages: it asks for a worker's next task, hands over pushes and reports deaths. What these
mean for batches and parameters is decided here, once. Each decision is an event, which the ledger takes first and the
journal records; so whoever feeds a ledger with the journal finds every batch where it was in the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nmt_async.cluster.task import Computed, Task
from nmt_async.errors import Diverged, RunFailure
from nmt_async.sync.compression.message import Message
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.ledger import Ledger, of_dispatcher
from nmt_async.sync.push import Answer, Push, Update, Verdict
from nmt_async.sync.rules import Rule
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchId, BatchPlan

NOT_FINITE_LIMIT = 2
"""Pushes of one batch that may be not finite before it is set aside."""

DEATH_LIMIT = 3
"""Workers that may die at one batch before it is set aside."""

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
        plan: the stream of batches.
        record: takes the journal's events as they happen.
        warn: takes one sentence about a batch that is tried again or set aside.
        last_epoch: the stream ends after it; None: it never ends.

    Attributes:
        ledger: where every batch is.
        clock: seconds, by which updates are timed; a cluster in virtual time leaves it, and times none.
        updates, updating: made by this object so far, and the seconds that they took by that clock.
    """

    def __init__(
        self,
        server: ParameterServer,
        plan: BatchPlan,
        record: Callable[[Event], None],
        warn: Callable[[str], None],
        last_epoch: int | None = None,
    ) -> None:
        self.server = server
        self.plan = plan
        self.warn = warn
        self.ledger = Ledger(lambda epoch: len(plan.epoch(epoch)), last_epoch)
        self.clock: Callable[[], float] = float
        self.updates, self.updating = 0, 0.0
        self._journal = record
        self._restarted: list[int] = []

    @property
    def rule(self) -> Rule:
        """When pushes become an update."""
        return self.server.rule

    @property
    def parameters(self) -> Tensor:
        """(size,), the current ones."""
        return self.server.parameters

    def _record(self, event: Event) -> None:
        self.ledger.take(event)
        self._journal(event)

    def next_task(self, worker: int) -> Task | None:
        """The next batch for ``worker`` with its pull; None if it is at one, must wait, or the stream has ended."""
        ledger = self.ledger
        if worker in ledger.out or not self.rule.may_start(ledger.standing(worker)):
            return None
        batch = ledger.next(worker)
        if batch is None:
            return None
        self.server.release(worker)  # one that was restarted read its former pull until now
        buffer = self.server.pull(worker)
        self._record(Event(Kind.STARTED, worker, batch, ledger.version))
        residuals = self.server.residuals
        residual = residuals.row(worker) if residuals is not None else 0
        return Task(batch, self.plan.parts(batch), buffer, self.server.learning_rate, residual)

    def push(self, worker: int, computed: Computed, gradient: Message) -> Answer:
        """A worker's gradient (size,) for the task it was given: what becomes of it.

        The gradient may be overwritten once this returns.

        Raises:
            ValueError: the worker has no task, as when it pushes twice: nothing is changed.
            TooManySetAside: of the epoch, more than `SET_ASIDE_SHARE`.
        """
        begun = self.ledger.out.get(worker)
        if begun is None:
            raise ValueError(f"worker {worker} has no task to push")
        batch = begun.batch
        push = Push(
            worker, batch, begun.version, computed.tokens, computed.source_tokens, len(self.plan.sentences(batch)),
            computed.loss, computed.gradient_norm, self.plan.position(batch), computed.pieces,
            computed.bytes,
        )  # fmt: skip
        awaited = self.ledger.awaited(besides=batch) if self.rule.ordered else None
        verdict = self.server.push(push, gradient, awaited)
        if verdict is Verdict.ACCEPTED:
            self._record(Event(Kind.ACCUMULATED, worker, batch, push.version, push.tokens, push.pieces))
        elif verdict is Verdict.STALE:
            self._record(Event(Kind.REFUSED, worker, batch, push.version, pieces=push.pieces))
        else:
            self._record(Event(Kind.NOT_FINITE, worker, batch, push.version, pieces=push.pieces))
            self._failed(batch, Kind.NOT_FINITE, "its gradient is not finite", NOT_FINITE_LIMIT)
        return Answer(verdict, self.due())

    def died(self, worker: int) -> Update | None:
        """A worker is gone: its slot counts for nothing, its batch goes back. Returns an update that waited for it.

        Raises:
            TooManySetAside: of the epoch, more than `SET_ASIDE_SHARE`.
        """
        begun = self.ledger.out.get(worker)
        self.server.release(worker)
        if begun is None:
            return None
        self._record(Event(Kind.RETURNED, worker, begun.batch, begun.version))
        self._failed(begun.batch, Kind.RETURNED, f"worker {worker} died at it", DEATH_LIMIT)
        return self.due()

    def _failed(self, batch: BatchId, how: Kind, what: str, limit: int) -> None:
        """A batch that was given back waits, or is set aside if it failed too often."""
        if self.ledger.failures[batch][how] < limit:
            self.warn(f"batch {batch.number} of epoch {batch.epoch} is tried again: {what}.")
            return
        self._record(Event(Kind.SET_ASIDE, batch=batch))
        lines = ", ".join(str(index + 1) for index in self.plan.sentences(batch)[:20])
        self.warn(
            f"batch {batch.number} of epoch {batch.epoch} is set aside after {limit} tries: {what}; "
            f"it holds the prepared sentence pairs {lines} …"
        )
        aside = sum(1 for other in self.ledger.set_aside if other.epoch == batch.epoch)
        if aside > max(1, SET_ASIDE_SHARE * len(self.plan.epoch(batch.epoch))):
            raise (TooManyNotFinite if how is Kind.NOT_FINITE else TooManySetAside)(
                f"{aside} batches of epoch {batch.epoch} had to be set aside, the last because {what}: more than "
                f"{SET_ASIDE_SHARE:.0%} of the epoch; look at the pairs named above, and if gradients are not finite, "
                f"lower the learning rate."
            )

    def due(self) -> Update | None:
        """The update that the rule allows now, if it does.

        A cluster asks when it begins: an update may have been put off for a worker that was at a batch before a resume.
        """
        return self._update() if self.ledger.accumulated and self.rule.may_update(self.ledger.round()) else None

    def _update(self) -> Update:
        begin = self.clock()
        update = self.server.update()
        self.updates += 1
        self.updating += self.clock() - begin
        self._record(Event(Kind.UPDATED, version=update.version, tokens=update.tokens))
        if self.rule.restarts:
            self._restart()
        return update

    def _restart(self) -> None:
        """Takes their batches from the workers whose pushes the update made too old."""
        ledger = self.ledger
        for worker, begun in sorted(ledger.out.items()):
            if not self.rule.counts(max(0, ledger.version - begun.version - self.server.late)):
                self._record(Event(Kind.RESTARTED, worker, begun.batch, begun.version))
                self._restarted.append(worker)

    def take_restarted(self) -> list[int]:
        """The workers that are to leave the batch they are at, since last asked; what they compute means nothing."""
        restarted, self._restarted = self._restarted, []
        return restarted

    def stop(self) -> Update | None:
        """Ends the run: batches that are out go back, what is accumulated is applied as a smaller update.

        A run that is to go on later is not stopped but left as it is: `state` holds a round that is under way.
        """
        ledger = self.ledger
        if ledger.stopped:
            return None
        self._record(Event(Kind.STOPPED, version=ledger.version))
        for worker, begun in sorted(ledger.out.items()):
            self.server.release(worker)
            self._record(Event(Kind.RETURNED, worker, begun.batch, begun.version))
        return self._update() if ledger.accumulated else None

    def readmit(self, worker: int, batch: BatchId, version: int, pulled: Tensor | None = None) -> None:
        """A worker holds the finished gradient of a batch begun on ``version``, as a simulated one does on resume.

        Args:
            pulled: (size,), the parameters of that version, where a correction looks at them.

        Raises:
            ValueError: the batch does not wait.
        """
        self._record(Event(Kind.READMITTED, worker, batch, version))
        self.server.readmit(worker, pulled)

    @property
    def finished(self) -> bool:
        """True when a finite stream has no batch left that is waiting or out."""
        return self.ledger.finished

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores: plain values, and tensors by name, not copied."""
        values, tensors = self.server.state()
        return {"server": values, "ledger": self.ledger.state()}, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor], workers: int = 0, sitting: int = 0) -> None:
        """Takes up where `state` was taken; what was out then is waiting.

        Args:
            workers: how many go on, for the journal (0: as many as before). A rule that sums as many pushes as the one
                before goes on with a round under way, whichever workers there were.
            sitting: the number of the sitting that begins, for the journal (0: unknown).
        """
        if "ledger" not in values:
            values = {**values, "ledger": of_dispatcher(values["dispatcher"], values["events"])}
        self.server.restore(values["server"], tensors)
        self.ledger.restore(values["ledger"], self.server.version, self.server.buffer.pushes)
        self._resume(workers, sitting)

    def begin_anew(self, workers: int, sitting: int = 0) -> None:
        """The run goes on without a checkpoint, since it was killed before the first: from the beginning."""
        self._resume(workers, sitting)

    def _resume(self, workers: int, sitting: int) -> None:
        resumed = Event(Kind.RESUMED, workers, version=self.ledger.version, tokens=sitting, stands=self.ledger.events)
        self._record(resumed)
