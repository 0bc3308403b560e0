"""The coordinator of one machine among several, which has its own server, ledger and journal.

What is accumulated here does not become an update by itself. It is contributed to an exchange; when that has landed,
every machine applies the same sum, deals the same batches to the same machines, and knows the same of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.task import Task
from nmt_async.sync.between.contribution import Contribution, Joint, Wish
from nmt_async.sync.between.dealing import Dealing, runs
from nmt_async.sync.between.lineage import Start, starts_of
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.between.ways import Way
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import Push, Update
from nmt_async.sync.schedule import Progress
from nmt_async.sync.server import ParameterServer
from nmt_async.text.plan import BatchId, BatchPlan


class MachineCoordinator(Coordinator):
    """What happens on one machine among several.

    Args:
        server, plan, record, warn, last_epoch: as in `Coordinator`.
        way: how machines exchange.
        workers: of each machine, by rank.
        rank: which of them this is.
        outer: the outer step, where each machine makes updates of its own.

    Attributes:
        dealing: who gets which batch; the same on every machine.
        on_the_way: whether a contribution of this machine has not landed yet.
        wish: what this machine wants the run to do; the next contribution says it.
        agreed: what all of them do, since the latest landing.
        settled: whether all of them agree on all parameters, so that there is a state to save: always, but for
            fragments that are exchanged one after another.
        starts: of the run so far.
        spent: seconds that this machine's workers have computed and waited since the latest contribution, summed over
            them; who asks for the next one says so before.
    """

    def __init__(
        self,
        server: ParameterServer,
        plan: BatchPlan,
        record: Callable[[Event], None],
        warn: Callable[[str], None],
        last_epoch: int | None,
        way: Way,
        workers: Sequence[int],
        rank: int,
        outer: OuterStep | None = None,
    ) -> None:
        super().__init__(server, plan, record, warn, last_epoch)
        self.outer = outer
        self._own: list[Update] = []  # since the latest contribution
        self._agreed_on = server.version, server.progress
        self._fragments = 1 if outer is None else outer.settings.fragments
        self._fragment = 0  # of several, the one that comes next
        self._steps = 0  # updates of its own, and of each fragment, how many of them were exchanged
        self._steps_exchanged = [0] * self._fragments
        self._next_is_whole = self._fragments == 1
        self._whole = True  # the contribution that is on the way, or was the latest
        self._left_with = server.parameters[:0]  # its fragment (part,), as the others know it
        self._left_at = server.version, server.progress.tokens
        self._heard = Wish.GO_ON  # since all of them have settled
        self.settled = True
        server.late = way.late
        self.way = way
        self.workers = tuple(workers)
        self.rank = rank
        self.dealing = Dealing(lambda epoch: len(plan.epoch(epoch)), last_epoch)
        self.on_the_way = False
        self.wish = self.agreed = Wish.GO_ON
        self.starts: list[Start] = []
        self.spent = (0.0, 0.0)
        self._spent_by = [(0.0, 0.0)] * len(self.workers)
        self._told_aside = 0
        self._ended = False
        self._landed: tuple[Update | None, list[list[BatchId]]] = (None, [])
        self._workers_before = sum(workers[:rank])

    def begin(self, wanted: Sequence[int]) -> None:
        """The first batches, until the second exchange, are dealt.

        Args:
            wanted: what each machine wants for a round, by rank.
        """
        for _ in range(2):
            self._take_dealt(self.dealing.deal(wanted)[self.rank])
        self._ended = self.dealing.exhausted and not self.dealing.outstanding

    @property
    def round_size(self) -> int:
        """Batches that this machine wants until an exchange."""
        updates = 1 if self.outer is None else self.outer.settings.every
        return max(updates * self.rule.pushes, self.workers[self.rank])

    def _take_dealt(self, batches: Sequence[BatchId]) -> None:
        for first, count in runs(batches):
            self._record(Event(Kind.DEALT, batch=first, version=self.ledger.version, tokens=count))

    def next_task(self, worker: int) -> Task | None:
        """As in `Coordinator`; none while everybody waits for an exchange, or after the run was agreed to end."""
        if self.agreed is not Wish.GO_ON:
            return None
        self.due()  # pushes may have come while an exchange was on the way
        if self.waits and (self.on_the_way or self.ready):
            return None
        if self.on_the_way and self.outer is not None and len(self._own) >= self.outer.settings.every:
            return None  # it is a round ahead already
        return super().next_task(worker)

    @property
    def in_fragments(self) -> bool:
        """Whether machines agree on all parameters at some moments only."""
        return self._fragments > 1

    @property
    def waits(self) -> bool:
        """Whether nobody begins a batch while an exchange is on the way: that one, or the one that comes next."""
        return self.way.waits and (self._whole if self.on_the_way else self._next_is_whole)

    def due(self) -> Update | None:
        """None: updates of the run come by `land`; but a machine may make one of its own now."""
        ledger = self.ledger
        may_step = self.outer is not None and ledger.accumulated and not (self.on_the_way and self._whole)
        if may_step and (ledger.finished or self.rule.may_update(ledger.round())):
            self._step()
        return None

    def _step(self) -> None:
        """What is accumulated becomes an update of this machine's own."""
        begin = self.clock()
        update = self.server.update()
        self.updates += 1
        self.updating += self.clock() - begin
        self._own.append(update)
        self._steps += 1
        self._record(Event(Kind.STEPPED, version=update.version, tokens=update.tokens))
        if self.rule.restarts:
            self._restart()

    @property
    def ready(self) -> bool:
        """Whether this machine should contribute now, be others ready or not."""
        if self.on_the_way or self.finished:
            return False
        ledger = self.ledger
        if self.wish is not Wish.GO_ON and self.way.joins:
            return True  # where everybody waits for each update, it is said with the next one
        if self.outer is not None:
            return len(self._own) >= self.outer.settings.every or ledger.finished or self._heard > Wish.SETTLE
        if ledger.accumulated:
            return ledger.finished or self.rule.may_update(ledger.round())
        # Where the others would have to contribute what they have, only want of batches is a reason to call them, or a
        # batch that they wait for in vain.
        untold = len(ledger.set_aside) > self._told_aside
        return ledger.finished and (untold or not (self.way.joins and self.dealing.exhausted))

    def contribute(self) -> tuple[Contribution, Tensor]:
        """What is accumulated leaves: what this machine says of it, and the sum (size,), zeros if there is nothing.

        The vector is not this object's until it comes back by `land`.

        Raises:
            ValueError: another contribution is on the way.
        """
        if self.outer is None:
            ages: tuple[int, ...] = ()
            pushes, total = self.server.take()
        else:
            pushes, ages, total = self._take_moved(self.outer)
        tokens = sum(push.tokens for push in pushes)
        wish = 1 + self.wish
        self._record(Event(Kind.CONTRIBUTED, version=self.ledger.version, tokens=tokens, pieces=wish))
        aside = tuple(self.ledger.set_aside[self._told_aside :])
        self._told_aside += len(aside)
        self.on_the_way = True
        self.server.late = self.way.late - self.waits  # what comes now is in the update after the one on the way
        stock = len(self.ledger.dealt or ()) + len(self.ledger.waiting)
        # What is computed until this lands, and until the next one does. Where nobody waits for that, nobody should
        # stand before an empty stock either.
        enough = 2 * max(len(pushes), self.round_size)
        if not self.waits:
            enough = 2 * enough if not stock else enough + 2 * self.workers[self.rank]
        wanted = max(0, enough - stock)
        version = self.ledger.version
        moved = self.outer is None or self._has_moved()
        said = Contribution(self._named(pushes), wanted, aside, self.wish, version, ages, moved, *self.spent)
        return said, total

    def _take_moved(self, outer: OuterStep) -> tuple[tuple[Push, ...], tuple[int, ...], Tensor]:
        """The pushes in this machine's own updates, their staleness, and what these have moved, (part,)."""
        self._whole = self._next_is_whole
        if self.ledger.accumulated and (self.ledger.finished or (self._fragments > 1 and self._whole)):
            self._step()  # it is not waited for more
        updates, self._own = self._own, []
        pushes = tuple(push for update in updates for push in update.pushes)
        ages = tuple(age for update in updates for age in update.staleness)
        total = outer.moved(self.server.parameters, self._exchanged)
        if not self._whole:
            self._left_with = outer.parameters[outer.part(self._fragment)] - total.float()
        self._left_at = self.server.version, self.server.progress.tokens
        return pushes, ages, total

    def _has_moved(self) -> bool:
        """Whether there is an update of this machine's own in what it contributes now, and never was before."""
        parts = range(self._fragments) if self._whole else [self._fragment]
        moved = any(self._steps > self._steps_exchanged[part] for part in parts)
        for part in parts:
            self._steps_exchanged[part] = self._steps
        return moved

    @property
    def _exchanged(self) -> int | None:
        """The fragment of the contribution that is on the way; None: it is all of them, or there is one only."""
        return None if self._whole else self._fragment

    @property
    def crossing(self) -> float:
        """Of a vector of 32-bit numbers, the share that the contribution on the way is."""
        return 1.0 if self.outer is None else self.outer.crossing(self._exchanged)

    @property
    def _drained(self) -> bool:
        """Whether no machine has a batch left of a finite stream."""
        return self.dealing.exhausted and not self.dealing.outstanding

    def _named(self, pushes: Sequence[Push]) -> tuple[Push, ...]:
        """The pushes, with workers counted over all machines."""
        before = self._workers_before
        return tuple(replace(push, worker=before + push.worker) for push in pushes)

    def land(self, joint: Joint, total: Tensor, first: MachineCoordinator | None = None) -> Update | None:
        """What all machines have contributed becomes an update; None if they had nothing.

        Args:
            joint: what they said.
            total: the sum (size,) of their vectors; this object's again.
            first: of a simulated cluster, the machine on which this has landed already: what it came to there is the
                same here.
        """
        mine = joint.contributions[self.rank]
        self.on_the_way = False
        if self.outer is not None:
            update = self._apply_outer(self.outer, joint, total)
        elif first is None:
            update = self._apply(joint, total)
        else:
            update = first._landed[0]
            self.server.follow(first.server, total)
        shares = self._deal(joint) if first is None else first._landed[1]
        self._landed = update, shares
        if first is None:  # of simulated machines the first one tells of all
            self._hear_spent(joint)
        if update is not None:
            tokens = sum(push.tokens for push in mine.pushes)
            pieces = 1 if self.outer is None else 0
            self._record(Event(Kind.UPDATED, version=update.version, tokens=tokens, pieces=pieces))
            if self.rule.restarts:
                self._restart()
        self._take_dealt(shares[self.rank])
        self._agree(joint.wish)
        self.server.late = self.way.late
        return update

    def _hear_spent(self, joint: Joint) -> None:
        self._spent_by = [
            (computing + told.computing, waiting + told.waiting)
            for (computing, waiting), told in zip(self._spent_by, joint.contributions, strict=True)
        ]

    def take_spent(self) -> list[tuple[float, float]]:
        """Of each machine, by rank, the seconds that its workers have computed and waited.

        As far as contributions have told since the last call.
        """
        heard, self._spent_by = self._spent_by, [(0.0, 0.0)] * len(self.workers)
        return heard

    def _agree(self, wish: Wish) -> None:
        """What follows from the wish of all machines."""
        self._heard = max(self._heard, wish)
        self.settled = self._whole
        if self.settled:
            self.agreed = self.agreed if self._heard is Wish.SETTLE else max(self.agreed, self._heard)
            self._ended = self._drained
            self._heard = Wish.GO_ON
            self.wish = Wish.GO_ON if self.wish is Wish.SETTLE else self.wish
            self._fragment = 0
        else:
            self._fragment = (self._fragment + 1) % self._fragments
        self._next_is_whole = self._fragments == 1 or self._heard is not Wish.GO_ON or self._drained

    def end(self) -> None:
        """The run has come to its end by what was applied, which all machines know."""
        if self.settled:
            self.agreed = max(self.agreed, Wish.STOP)
        else:
            self.wish = max(self.wish, Wish.STOP)

    def _apply_outer(self, outer: OuterStep, joint: Joint, total: Tensor) -> Update | None:
        """All machines go on from the outer step of what they have moved; None if there is nothing new in it."""
        moved = sum(contribution.moved for contribution in joint.contributions)
        if not moved:
            return None
        norm = float(torch.linalg.vector_norm(total.float())) / moved
        fragment = self._exchanged
        parameters = outer.step(total, moved, fragment)
        if fragment is not None:  # this machine has made something of it meanwhile
            step, parameters = parameters - self._left_with, self.server.parameters.clone()
            parameters[outer.part(fragment)] += step
        agreed = self._agreed_on[1]
        version = max(contribution.version for contribution in joint.contributions)
        tokens = agreed.tokens + sum(push.tokens for push in joint.pushes)
        epochs = max(agreed.epochs, *(push.position for push in joint.pushes), 0.0)
        self._agreed_on = version, Progress(version, tokens, epochs)
        since, now = self._left_at, self.server.progress
        version += self.server.version - since[0]
        self.server.move(
            parameters, version, Progress(version, tokens + now.tokens - since[1], max(epochs, now.epochs))
        )
        if not joint.pushes:
            return None
        ages = tuple(age for contribution in joint.contributions for age in contribution.staleness)
        return Update(self._agreed_on[0], joint.pushes, ages, self.server.learning_rate, norm)

    def _deal(self, joint: Joint) -> list[list[BatchId]]:
        """What each machine is dealt now."""
        aside = [batch for contribution in joint.contributions for batch in contribution.set_aside]
        self.dealing.done((push.batch for push in joint.pushes), aside)
        return self.dealing.deal([each.wanted for each in joint.contributions])

    def _apply(self, joint: Joint, total: Tensor) -> Update | None:
        if not joint.pushes:
            self.server.buffer.reuse(total)
            return None
        begin = self.clock()
        update = self.server.apply_joint(joint.pushes, total)
        self.updates += 1
        self.updating += self.clock() - begin
        return update

    @property
    def parameters(self) -> Tensor:
        """(size,), those that all machines have agreed on."""
        return self.server.parameters if self.outer is None else self.outer.parameters

    @property
    def finished(self) -> bool:
        """True when the run was agreed to end, or a finite stream has no batch left on any machine."""
        return self._ended or self.agreed is not Wish.GO_ON

    def stop(self) -> Update | None:
        """Ends the run here. What is not in an update will be dealt anew if the run goes on."""
        ledger = self.ledger
        if not ledger.stopped:
            self._record(Event(Kind.STOPPED, version=ledger.version))
            for worker in list(ledger.out):
                self.server.release(worker)
        return None

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint stores; what is not in an update yet is only noted as to be dealt.

        Raises:
            ValueError: machines agree on parts of the parameters only, and not on the same batches in each.
        """
        if not self.settled:
            raise ValueError("the machines have not settled")
        values, tensors = self.server.state()
        values, tensors = {**values, "buffer": _NOTHING_SUMMED}, _without_sums(tensors)
        if self.outer is not None:  # what this machine has made of them since then, others have not
            version, progress = self._agreed_on
            values |= {"version": version, "progress": vars(progress)}
            tensors |= {"parameters": self.outer.parameters, **self.outer.tensors}
            if "before" in tensors:  # of a prediction: nothing is expected of them yet
                tensors["before"] = self.outer.parameters
        state = {"server": values, "dealing": self.dealing.state(), "starts": [list(start) for start in self.starts]}
        # A replay comes to what a machine has by itself, as its own moments, where it was at the very same event.
        return {**state, "machine": self.rank, "events": self.ledger.events}, tensors

    def take_up(self, values: dict[str, Any], tensors: dict[str, Tensor], stands: int, sitting: int) -> None:
        """Takes up a state, be it of several machines or of one that was alone; all machines take up the same.

        Args:
            stands: how many events of this machine's journal stand; see `nmt_async.sync.between.lineage`.
            sitting: the number of the start, the same on all machines.

        Raises:
            LookupError, TypeError, ValueError, RuntimeError: it is not what `state` gives.
        """
        self.server.restore({**values["server"], "buffer": _NOTHING_SUMMED}, tensors)
        if self.outer is not None:
            self.outer.restore(self.server.parameters, tensors)
        self.dealing.restore(values["dealing"] if "dealing" in values else _dealing_of(values))
        self.starts = starts_of(values.get("starts", ()))
        self._go_on(stands, sitting)

    def begin_with(self, parameters: Tensor) -> None:
        """The initial ``parameters`` (size,), copied: those of the first machine, to the last bit."""
        server = self.server
        server.move(parameters, server.version, server.progress)
        if server.optimizer.average is not None:
            server.optimizer.average.copy_(parameters)
        if self.outer is not None:
            self.outer.restore(parameters, {})

    def begin_shared(self, stands: int, sitting: int) -> None:
        """The run begins, or begins anew since there is no checkpoint, and is shared by all machines."""
        self._go_on(stands, sitting)

    def _go_on(self, stands: int, sitting: int) -> None:
        self._agreed_on = self.server.version, self.server.progress
        self.starts.append(Start(sitting, self.server.version))
        self.ledger.events = stands
        machines = BatchId(len(self.workers), self.rank)
        workers = self.workers[self.rank]
        pieces = 1 if self.outer is None else 0
        self._record(Event(Kind.RESUMED, workers, machines, self.server.version, sitting, pieces, stands))


_NOTHING_SUMMED: dict[str, Any] = {"summed": [], "held": []}


def _without_sums(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "sum" and not name.startswith("held")}


def _dealing_of(values: dict[str, Any]) -> dict[str, Any]:
    """The state of a dealing, of the run of one machine: what is in its sum is computed again."""
    ledger, buffer = values["ledger"], values["server"]["buffer"]
    summed = [push["batch"] for push in (*buffer["summed"], *buffer.get("held", ()))]
    recalled = sorted(map(tuple, (*ledger["waiting"], *summed)))
    return {"position": ledger["position"], "recalled": recalled, "set_aside": ledger["set_aside"]}
