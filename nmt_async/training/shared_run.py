"""A run that machines share, on one of them: what it does otherwise than a run of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.cluster import Cluster
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.display.console import Display
from nmt_async.display.reports import MachinesReport
from nmt_async.errors import RunFailure
from nmt_async.model.translation_model import TranslationModel
from nmt_async.reading import as_dataclass
from nmt_async.sync.between.contribution import Wish
from nmt_async.sync.between.lineage import Start, starts_of
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import Update
from nmt_async.text.prepared import PreparedData
from nmt_async.training.journal_file import JOURNAL, JournalFile, latest_sitting
from nmt_async.training.metrics import Moment, ReportPeriod
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import Shared, SimulatedSetup, Tell, build_coordinator
from nmt_async.training.run import Run
from nmt_async.training.run_folder import RunFolder
from nmt_async.training.saving import StateOfRun
from nmt_async.training.sharing import (
    Peers,
    earlier_events,
    from_the_first,
    newest_of_all,
    number_of_start,
    reconciled,
    run_of,
    shared_start,
    simulated_journal,
    starts_in,
)


class SharedRun(Run):
    """One start of a run that machines share, on one of them. See `Run` for the other arguments.

    Args:
        peers: the machines.
    """

    def __init__(
        self, options: TrainOptions, data: PreparedData, folder: RunFolder, model: TranslationModel, display: Display,
        peers: Peers, devices_reason: str = "",
    ) -> None:  # fmt: skip
        self.peers = peers
        self.leads = peers.leads
        self._journalled = earlier_events(folder.path / JOURNAL)
        self._latest_settled: StateOfRun | None = None
        super().__init__(options, data, folder, model, display, devices_reason)

    @property
    def machine(self) -> MachineCoordinator:
        """The coordinator."""
        assert isinstance(self.coordinator, MachineCoordinator)
        return self.coordinator

    def _build_coordinator(self) -> Coordinator:
        there = self.peers.gather({"workers": len(self.options.device_list())})
        shared = Shared(tuple(int(values["workers"]) for values in there), self.peers.rank)
        return build_coordinator(
            self.options, self.plan, self.layout, self.setup.buffers, self._record, self._warn,
            residuals=self.setup.residuals, shared=shared,
        )  # fmt: skip

    def _build_cluster(self, settings: WorkerSettings, opened: contextlib.ExitStack) -> Cluster:
        """The workers; of all machines, where these are simulated."""
        if isinstance(self.setup, SimulatedSetup):
            return self.setup.machines([self.machine, *self._other_machines(self.setup, opened)], settings)
        exchange = self.peers.exchange(self.options.way())
        opened.callback(exchange.close)
        return self.setup.cluster(self.coordinator, settings, Tell(self._warn, self._note), exchange)

    def _other_machines(self, setup: SimulatedSetup, opened: contextlib.ExitStack) -> Iterator[MachineCoordinator]:
        """Those of a simulated cluster beside the first, in the state that it has taken up."""
        values, tensors = self.machine.state()
        for rank in range(1, len(self.machine.workers)):
            buffers = setup.more_buffers(self.layout.size)
            shared, residuals = Shared(self.machine.workers, rank), None
            if setup.residuals is not None:
                residuals = torch.zeros_like(setup.residuals)
            journal, stands = self._open_journal_of(rank)
            opened.callback(journal.close)
            machine = build_coordinator(
                self.options, self.plan, self.layout, buffers, functools.partial(self._record_other, journal),
                self._warn, residuals=residuals, shared=shared,
            )  # fmt: skip
            assert isinstance(machine, MachineCoordinator)
            machine.take_up(values, tensors, stands, self.sitting.number)
            machine.begin([machine.round_size] * len(machine.workers))
            yield machine

    def _open_journal_of(self, rank: int) -> tuple[JournalFile, int]:
        """That of another simulated machine; see `simulated_journal`."""
        folder, workers = self.folder.path, self.machine.workers[rank]
        try:
            return simulated_journal(folder, rank, self.sitting, workers, self.machine.starts)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RunFailure(
                f"{folder}: the journal of simulated machine {rank} cannot be written ({reason})."
            ) from None

    def _record_other(self, journal: JournalFile, event: Event) -> None:
        """Another simulated machine's event; what was contributed is written before it becomes an update."""
        journal.record(event)
        if event.kind is Kind.CONTRIBUTED:
            self._may_fail("writing the journal", journal.flush)

    def _machines(self) -> MachinesReport:
        """Those that share the run."""
        workers = list(self.machine.workers)
        return MachinesReport(self.moment.updates, self.peers.rank, list(self.peers.names), workers)

    def _resume(self) -> tuple[bool, tuple[dict[str, Any], dict[str, Tensor]] | None]:
        """Takes up the newest state that any of the machines has; whether its own validation was not finished then."""
        machine, peers = self.machine, self.peers
        run, known = run_of(self.folder.path), starts_in(self._journalled)
        number = number_of_start(peers, latest_sitting(self.folder.path))
        found = newest_of_all(peers, run, self.layout.size, known, self._warn)
        with self._takes_up():
            state: dict[str, Any] = {} if found is None else found[0]["coordinator"]
            starts = starts_of(state.get("starts", ()))
            now = Start(number, int(state["server"]["version"]) if state else 0)
            self.sitting = self._note_sitting(number, shared_start(self.options, state))
        stands, unheard = reconciled(self._journalled, starts, now)
        if unheard is not None:
            self.journal.record(unheard)
        validating = False
        held: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        if found is None:
            initial = machine.server.parameters.clone()
            from_the_first(peers, initial)
            machine.begin_with(initial)
            machine.begin_shared(stands, self.sitting.number)
        else:
            values, tensors = found
            with self._takes_up():
                machine.take_up(values["coordinator"], tensors, stands, self.sitting.number)
                self.moment = as_dataclass(Moment, values["moment"])
                self.validations.restore(values)
                self.period = ReportPeriod.restored(values["stretch"])
                validating = bool(values["validating"])
                held = (values.get("cluster", {}), {}) if values.get("cluster") else None
            if self.leads and self.moment.updates in self.checkpoints.steps():  # it may be another machine's
                self.checkpoints.rely_on(self.moment.updates, self.validations.judge.best_steps)
            self.display.say(f"{self.folder.path}: going on after update {self.moment.updates:,}.")
        machine.begin([int(values["wanted"]) for values in peers.gather({"wanted": machine.round_size})])
        return validating, held if isinstance(self.setup, SimulatedSetup) else None

    def _record(self, event: Event) -> None:
        super()._record(event)
        if event.kind is Kind.CONTRIBUTED:  # others may save it before this machine records anything more
            self._may_fail("writing the journal", self.journal.flush)

    def _settled(self) -> bool:
        """Whether there is a state to save; where machines do not agree on all parameters yet, they are asked to."""
        if not self.machine.settled:
            self.machine.wish = max(self.machine.wish, Wish.SETTLE)
        return self.machine.settled

    def _state_to_save(self) -> StateOfRun | None:
        """The latest that there is; in fragments, that of when the machines settled last."""
        return self._state() if self.machine.settled else self._latest_settled

    def _keep_state(self) -> None:
        """Where there is a state at some moments only, one is kept: who saves may be lost with its disk."""
        if self.machine.in_fragments and self.machine.settled:
            self._latest_settled = self._state().copy()

    def _count(self, update: Update | None) -> None:
        super()._count(update)
        if update is not None:
            self.period.add_machines(update, self.machine.workers, self.machine.take_spent())
            self._keep_state()

    def train(self) -> None:
        """As in `Run`."""
        self._keep_state()
        super().train()

    def _ends(self) -> bool:
        """Whether training ends now; all machines end it after the same update."""
        if self._counted_to_the_end():
            self.machine.end()
        elif self._reason_to_stop() is not None:
            self.machine.wish = Wish.PAUSE if self.signals.number else Wish.STOP
        return self.machine.agreed is not Wish.GO_ON

    def _counted_to_the_end(self) -> bool:
        """Whether ``--stop-after`` follows from what was applied, which is the same on all machines."""
        stop = self.options.stop_after
        if stop is None or stop.unit in ("hours", "minutes"):
            return False
        return self._epochs_done(stop.amount) if stop.unit == "epochs" else self.moment.reaches(stop)

    def _interrupted(self) -> bool:
        """Whether a signal ends the run, here or on another machine."""
        return super()._interrupted() or self.machine.agreed is Wish.PAUSE

    def _others_reason(self) -> str:
        """Why this machine ends, if another one does."""
        if self.machine.agreed is Wish.GO_ON:
            return ""
        return "a signal to another machine" if self.machine.agreed is Wish.PAUSE else "what the machines agreed on"

    def save_after_failure(self, failure: RunFailure) -> str:
        """As in `Run`; the others are told why this machine leaves."""
        self.peers.leave(str(failure))
        return super().save_after_failure(failure)
