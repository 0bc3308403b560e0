"""A run: builds the parts, takes up a checkpoint if there is one, and trains until it should stop."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nmt_async.checkpoints.run_checkpoints import Checkpoints, ModelFiles
from nmt_async.cluster.cluster import Cluster
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.display.console import Display
from nmt_async.display.reports import MachinesReport, RunTitle, ValidReport, worker_places
from nmt_async.errors import Diverged, RunFailure, UserError, shown
from nmt_async.model.configuration import ModelConfiguration, model_title
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.quantity import Quantity
from nmt_async.reading import as_dataclass
from nmt_async.sync.between.contribution import Wish
from nmt_async.sync.between.lineage import Start, starts_of
from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import Update
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import expected_lines
from nmt_async.training.interruptions import Interrupted, MayFail, StopSignals
from nmt_async.training.journal_file import JOURNAL, JournalFile, latest_sitting, note_sitting
from nmt_async.training.metrics import Every, MetricsFiles, Moment, ReportPeriod
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import (
    Shared,
    SimulatedSetup,
    Tell,
    build_coordinator,
    model_configuration,
    setup_for,
    training_plan,
)
from nmt_async.training.resuming import change_text
from nmt_async.training.run_folder import Ending, RunFolder
from nmt_async.training.saving import Saving, Soundness
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
from nmt_async.training.validation import Judge, Validations, Validator
from nmt_async.training.validation_scores import Scores, ValidationSettings

VANISHED = "nothing of the run is kept unless it is put back; "

NO_STATE = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError)
"""What taking up a state raises that no run can have left."""


class Unsaved(RunFailure):
    """The run ended, and its last checkpoint could not be written."""


class Run:
    """One start of a run, from its parts to its end.

    Args:
        options: as resolved.
        data: to train on.
        folder: of the run.
        model: with the parameters to begin with.
        display: shows what happens.
        peers: the machines that share the run; None: it is this one's alone.
    """

    def __init__(
        self, options: TrainOptions, data: PreparedData, folder: RunFolder, model: TranslationModel, display: Display,
        devices_reason: str = "", peers: Peers | None = None,
    ) -> None:  # fmt: skip
        self.options = options
        self.peers = peers
        self.leads = peers is None or peers.leads
        self.data = data
        self.folder = folder
        self.display = display
        self.devices_reason = devices_reason
        self.moment = Moment()
        self.signals = StopSignals()
        self.soundness = Soundness()
        self._may_fail = MayFail(self._warn, self._say)
        self._latest_gradient = 0.0
        self.metrics: MetricsFiles | None = None
        self._unnoted: list[str] = []
        with contextlib.ExitStack() as opened:
            self._open(model, opened)
            self._opened = opened.pop_all()

    def _open(self, model: TranslationModel, opened: contextlib.ExitStack) -> None:
        """Builds the parts; what is to be closed is in ``opened``, also if the building fails half-way."""
        options, data, folder = self.options, self.data, self.folder
        opened.callback(self._close_metrics)
        devices = options.device_list()
        configuration = model_configuration(options, data)
        self.layout = FlatLayout(model)
        self.setup = setup_for(options, self.layout.size)
        opened.callback(self.setup.close)
        self.setup.buffers[0].copy_(self.layout.gather(model))
        self.period = ReportPeriod(self.moment)
        self._journalled = [] if self.peers is None else earlier_events(folder.path / JOURNAL)
        self.journal = JournalFile(folder.path / JOURNAL, len(devices), options.threads())
        opened.callback(self.journal.close)
        self._note_sitting = functools.partial(
            note_sitting, folder.path, options.threads(), devices, options.stop_after
        )  # fmt: skip
        self.plan = training_plan(options, data)
        shared = None
        if self.peers is not None:
            there = self.peers.gather({"workers": len(devices)})
            shared = Shared(tuple(int(values["workers"]) for values in there), self.peers.rank)
        self.coordinator = build_coordinator(
            options, self.plan, self.layout, self.setup.buffers, self._record, self._warn,
            residuals=self.setup.residuals, shared=shared,
        )  # fmt: skip
        self.checkpoints = Checkpoints(
            folder.path,
            ModelFiles(configuration, self.layout, *folder.vocabularies),
            options.keep_last,
            options.keep_best,
        )
        opened.callback(self.checkpoints.close)
        self.saving = Saving(self.checkpoints, self._may_fail, time.monotonic)
        judge = Judge(options.metric, options.early_stopping, options.keep_best)
        self.validations = Validations(self._build_validator(configuration), judge, self._tell, self._keep)
        opened.callback(self.validations.close)
        validating, held = self._resume() if self.peers is None else self._resume_shared(self.peers)
        self.display.begin(self._title(devices))
        self.metrics = MetricsFiles(
            folder.path, self.moment.updates, self.validations.judged, options.tensorboard, self._machines()
        )
        for text in self._unnoted:
            self._note(text)
        self._expect()
        self._earlier = self.moment.seconds
        settings = WorkerSettings(
            data.folder.resolve(), configuration, options.seed, options.label_smoothing, options.threads(),
            options.push_settings(),
        )  # fmt: skip
        self.cluster = self._build_cluster(settings, opened)
        opened.callback(self.cluster.close)
        if held is not None:
            with self._takes_up():
                self.cluster.restore(*held)
        if validating and self.validations.possible:
            self._validate()

    def _build_cluster(self, settings: WorkerSettings, opened: contextlib.ExitStack) -> Cluster:
        """The workers; of all machines, where these are simulated."""
        peers, tell = self.peers, Tell(self._warn, self._note)
        if peers is not None and isinstance(self.setup, SimulatedSetup):
            return self.setup.machines([self.machine, *self._other_machines(self.setup, opened)], settings)
        if peers is None:
            return self.setup.cluster(self.coordinator, settings, tell)
        exchange = peers.exchange(self.options.way())
        opened.callback(exchange.close)
        return self.setup.cluster(self.coordinator, settings, tell, exchange)

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

    def _build_validator(self, configuration: ModelConfiguration) -> Validator | None:
        if self.data.valid is None or not self.leads:
            return None
        options = self.options
        settings = ValidationSettings(
            self.data.folder.resolve(), configuration, options.valid_translate or options.metric != "cross-entropy",
            options.valid_beam_size, options.valid_sentences,
        )  # fmt: skip
        return self.setup.validator(settings, Tell(self._warn, self._note))

    def _title(self, devices: list[str]) -> RunTitle:
        options = self.options
        rule, places = options.rule(), worker_places(devices, options.cluster, options.profile)
        model = f"from {options.init_from}" if options.init_from else model_title(options.model, options.preset)
        return RunTitle(
            self.folder.path.resolve().name, options.sync_mode, rule.pushes, places,
            model, self.layout.parameters, options.stop_after, self.moment.seconds, self.devices_reason,
            rule.most_pushes, self._machines(),
        )  # fmt: skip

    def _machines(self) -> MachinesReport | None:
        """Those that share the run."""
        if self.peers is None:
            return None
        return MachinesReport(
            self.moment.updates, self.peers.rank, list(self.peers.names), list(self.machine.workers)
        )  # fmt: skip

    def _expect(self) -> None:
        """Says what the updates will be."""
        earlier = self.folder.earlier
        change = change_text(earlier, self.options, self.plan) if earlier else ""
        for line in filter(None, [change, *expected_lines(self.options, self.plan)]):
            self.display.say(line)
            self._note(f"[expected] {line}")

    def _resume(self) -> tuple[bool, tuple[dict[str, Any], dict[str, Tensor]] | None]:
        """Takes up the newest checkpoint; whether its own validation was not finished then, and the cluster's state."""
        self.sitting = self._note_sitting()
        found = self.checkpoints.newest(self._warn) if self.folder.resumed else None
        if found is None:
            if self.folder.resumed:  # it was killed before its first checkpoint, and begins anew
                self.coordinator.begin_anew(len(self.options.device_list()), self.sitting.number)
            return False, None
        values, tensors = found
        with self._takes_up():
            self._take_up(values, tensors)
            validating = bool(values["validating"])
        self.checkpoints.rely_on(self.moment.updates, self.validations.judge.best_steps)
        self.display.say(f"{self.folder.path}: going on after update {self.moment.updates:,}.")
        return validating, (values.get("cluster", {}), tensors)

    def _resume_shared(self, peers: Peers) -> tuple[bool, tuple[dict[str, Any], dict[str, Tensor]] | None]:
        """Takes up the newest state that any of the machines has; whether its own validation was not finished then."""
        machine = self.machine
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

    @property
    def machine(self) -> MachineCoordinator:
        """The coordinator, of a run that machines share."""
        assert isinstance(self.coordinator, MachineCoordinator)
        return self.coordinator

    @contextlib.contextmanager
    def _takes_up(self) -> Iterator[None]:
        """What is taken up inside was checked by its hash, and may yet have been made by somebody else."""
        try:
            yield
        except NO_STATE as error:
            raise UserError(
                f"{self.folder.path}: its newest checkpoint holds no state that this run could have left "
                f"({type(error).__name__}: {shown(str(error))}); remove it to go on from the one before, or choose "
                f"another --out."
            ) from None

    def _take_up(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.coordinator.restore(values["coordinator"], tensors, len(self.options.device_list()), self.sitting.number)
        self.moment = as_dataclass(Moment, values["moment"])
        self.validations.restore(values)
        if "stretch" in values:  # earlier versions did not keep it
            self.period = ReportPeriod.restored(values["stretch"])

    def _record(self, event: Event) -> None:
        self.journal.record(event)
        if event.kind is Kind.CONTRIBUTED:  # others may save it before this machine records anything more
            self._may_fail("writing the journal", self.journal.flush)
        self.soundness.record(event)
        self.period.record(event)

    def _warn(self, text: str) -> None:
        self.display.warn(text)
        self._note(f"[warn] {text}")

    def _say(self, text: str) -> None:
        self.display.say(text)
        self._note(text)

    def _note(self, text: str) -> None:
        """A sentence for ``train.log``, now or as soon as that is open; where it cannot be written, it is lost."""
        if self.metrics is None:
            self._unnoted.append(text)
            return
        with contextlib.suppress(OSError):
            self.metrics.note(text)

    @property
    def figures(self) -> MetricsFiles:
        """The files of the run's figures, which are open while it trains."""
        assert self.metrics is not None
        return self.metrics

    def train(self) -> None:
        """Trains until the run should stop, and saves it.

        Raises:
            Interrupted: a signal ended it.
            Unsaved: the last checkpoint could not be written.
            RunFailure: workers died again and again, or too many batches were set aside.
        """
        options = self.options
        self._may_fail("removing what noted the end before", self.folder.begins)
        report, save, validate = (
            Every(quantity, self.moment) for quantity in (options.disp_freq, options.save_freq, options.valid_freq)
        )
        with self.signals:
            if not self._ends():
                for update in self.cluster.updates():
                    self._count(update)
                    self.validations.hear()
                    # Between updates there is nothing new to report, validate or save.
                    if update is not None:
                        self._when_due(report, validate, save)
                    if self._ends():
                        break
            self._finish()

    def _when_due(self, report: Every, validate: Every, save: Every) -> None:
        begin = self.cluster.seconds
        if report.due(self.moment):
            report.mark(self.moment)
            self._report()
        if validate.due(self.moment) and self.validations.possible:
            validate.mark(self.moment)
            self._validate()
            self.validations.hear()
        self.saving.hear(self.validations.judge.best_steps)
        due = self.leads and not self.saving.busy and (save.due(self.moment) or self.saving.due)
        if due and self._settled():
            save.mark(self.moment)
            self._begin_checkpoint()
        self.period.stalled(self.cluster.seconds - begin)

    def _settled(self) -> bool:
        """Whether there is a state to save; where machines do not agree on all parameters yet, they are asked to."""
        if self.peers is None or self.machine.settled:
            return True
        self.machine.wish = max(self.machine.wish, Wish.SETTLE)
        return False

    @property
    def decoding_parameters(self) -> Tensor:
        """The parameters to translate with: the moving average if there is one."""
        average = self.coordinator.server.optimizer.average
        if average is not None:
            return average
        return self.coordinator.server.parameters if self.peers is None else self.machine.parameters

    def _count(self, update: Update | None) -> None:
        seconds = self._earlier + self.cluster.seconds
        if update is None:
            self.moment = Moment(**{**vars(self.moment), "seconds": seconds})
            return
        self.moment = self.moment.after(update, self.coordinator.server.progress.epochs, seconds)
        self.period.add(update)
        if self.peers is not None:
            self.period.add_machines(update, self.machine.workers, self.machine.take_spent())
        self._latest_gradient = update.gradient_norm * update.tokens
        self._may_fail("writing the journal", self.journal.flush)
        stop = self.options.stop_after
        self.display.progress(self.moment.share(stop), self.moment.updates)

    def _report(self) -> None:
        if not self.period.updates:
            return
        aside = len(self.coordinator.ledger.set_aside)
        shares, seconds = self.cluster.waiting_shares(), self.cluster.update_seconds()
        report = self.period.report(self.moment, shares, aside, seconds)
        self._may_fail("finding the run's folder", self.folder.check, lambda: VANISHED)
        self._may_fail("writing the figures", lambda: self.figures.trained(report))
        self.display.trained(report)
        self.period = ReportPeriod(self.moment)

    def _validate(self) -> None:
        begin = self.validations.begin
        self._may_fail("starting a validation", lambda: begin(self.moment, self.decoding_parameters))

    def _tell(self, report: ValidReport, scores: Scores) -> None:
        self._may_fail("writing the figures", lambda: self.figures.validated(report, scores.losses, scores.tokens))
        self.display.validated(report)

    def _keep(self, step: int, parameters: Tensor) -> None:
        self.saving.keep(step, parameters, self.validations.judge.best_steps)

    def _begin_checkpoint(self) -> None:
        """Begins to save; see `Checkpoints.save`."""
        values, tensors = self.coordinator.state()
        held, held_tensors = self.cluster.state()
        state: dict[str, Any] = {
            "coordinator": values, "cluster": held, "moment": vars(self.moment), "stretch": self.period.state(),
            "validating": self.validations.at(self.moment.updates), **self.validations.state(),
        }  # fmt: skip
        self._may_fail("writing the journal", self.journal.flush)
        # A resume says how many of the journal's events still stand, so they must be there.
        first = functools.partial(self.journal.secure, self.journal.recorded)
        best = self.validations.judge.best_steps
        self.saving.begin(self.moment.updates, state, tensors | held_tensors, self.decoding_parameters, best, first)

    def _write_checkpoint(self) -> None:
        self.saving.settle(self.validations.judge.best_steps)
        self._begin_checkpoint()
        self.saving.result()

    def _reason_to_stop(self) -> str | None:
        stop = self.options.stop_after
        if self.signals.number:
            return f"signal {self.signals.name}"
        if stop is not None and self.moment.reaches(stop) and stop.unit != "epochs" and self._counts(stop):
            return f"--stop-after {stop}"
        if stop is not None and stop.unit == "epochs" and self._epochs_done(stop.amount):
            return f"--stop-after {stop}"
        judge = self.validations.judge
        if judge.exhausted:
            return f"{judge.stalled} validations in a row without a better {judge.metric}"
        return None

    def _counts(self, stop: Quantity) -> bool:
        """Whether this machine says when so much is over: the time is that of the first machine."""
        return self.leads or stop.unit not in ("hours", "minutes")

    def _ends(self) -> bool:
        """Whether training ends now. Machines that share a run end it after the same update."""
        if self.peers is None:
            return self._reason_to_stop() is not None
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

    def _epochs_done(self, amount: float) -> bool:
        # Whole epochs end when each of their batches is applied, which the ledger knows best.
        ledger = self.coordinator.ledger
        if ledger.last_epoch is not None:
            return self.coordinator.finished and not ledger.accumulated
        return self.moment.epochs >= amount

    def _finish(self) -> None:
        reason = self._reason_to_stop() or self._others_reason() or "the end of the data"
        self._stop_cluster(goes_on=self._interrupted())
        self._report()
        self._last_validation()
        try:
            if self.moment.updates and self.leads:
                self._write_checkpoint()
        except OSError as error:
            unsaved = Unsaved(
                f"{self.folder.path}: the last checkpoint could not be written ({error.strerror or error}); fix "
                f"that, and give the same command to go on from the checkpoint before."
            )
            self._note_end("failed", str(unsaved))
            raise unsaved from None
        if self.signals.number:  # it may have come while we were at it
            reason = f"signal {self.signals.name}"
        if not self.signals.number:
            self._tell_of_residuals()
        text = f"stopped at update {self.moment.updates:,} by {reason}"
        self._may_fail("writing the log", lambda: self.figures.note(text))
        self._note_end("interrupted" if self._interrupted() else "finished", text)
        if self._interrupted():
            saved = "the run is saved, " if self.moment.updates else ""
            number = self.signals.number or signal.SIGTERM
            raise Interrupted(f"{text}; {saved}give the same command to go on.", number)
        self.display.say(f"{text}; {self.folder.path} holds the run.")

    def _tell_of_residuals(self) -> None:
        """What pushes left behind waited for a next push, and there is none."""
        residuals = self.coordinator.server.residuals
        if residuals is None or not self._latest_gradient:
            return
        norm = residuals.norm()
        self._say(f"pushes brought {self.moment.pushed_bytes / 2**20:,.1f} MiB to the server.")
        share = f"{norm / self._latest_gradient:.2g} times that of the last update's gradient"
        self._say(f"what the pushes left behind is not applied: its norm is {norm:.4g}, {share}.")

    def _stop_cluster(self, goes_on: bool) -> None:
        """Ends the run's last round with a smaller update, unless the run is to go on as if nothing had been."""
        if goes_on:
            self.cluster.pause()
        else:
            last = self.cluster.stop()
            if last is not None:
                self._count(last)
        self._may_fail("writing the journal", self.journal.flush)

    def _last_validation(self) -> None:
        if not self.moment.updates:
            return
        self.validations.hear_all(self._interrupted)
        if (
            self.validations.possible
            and not self.validations.has_begun(self.moment.updates)
            and not self._interrupted()
        ):
            self._validate()
            self.validations.hear_all(self._interrupted)

    def _interrupted(self) -> bool:
        """Whether a signal ends the run, here or on another machine."""
        return bool(self.signals.number) or (self.peers is not None and self.machine.agreed is Wish.PAUSE)

    def _others_reason(self) -> str:
        """Why this machine ends, if another one does."""
        if self.peers is None or self.machine.agreed is Wish.GO_ON:
            return ""
        return "a signal to another machine" if self.machine.agreed is Wish.PAUSE else "what the machines agreed on"

    def _note_end(self, ending: Ending, reason: str) -> None:
        self._may_fail("noting how the run ended", lambda: self.folder.ended(ending, reason))

    def save_after_failure(self, failure: RunFailure) -> str:
        """Saves what there is when the run cannot go on; ``failure`` and a sentence that says what is saved."""
        self._stop_cluster(goes_on=True)
        self._report()
        if self.peers is not None:
            self.peers.leave(str(failure))
        text = f"{failure} {self._save_if_sound()}"
        self._may_fail("writing the log", lambda: self.figures.note(f"[error] {text}"))
        self._note_end("diverged" if isinstance(failure, Diverged) else "failed", text)
        return text

    def _save_if_sound(self) -> str:
        """Parameters whose gradients are not finite are not saved: they would take the place of better ones."""
        try:
            settled = self.peers is None or self.machine.settled
            if self.moment.updates and self.soundness.sound and settled:
                self._write_checkpoint()
                return f"The run is saved at update {self.moment.updates:,}."
        except (OSError, RunFailure) as error:
            self._warn(f"update {self.moment.updates:,} could not be saved ({error}).")
        self.saving.settle(self.validations.judge.best_steps)  # one may be under way
        steps = self.checkpoints.steps()
        if not steps:
            return "Nothing is saved."
        return f"What led to it is not saved; {self.checkpoints.folder}/step-{steps[-1]} is the last good checkpoint."

    def close(self) -> None:
        """Ends all processes and closes all files."""
        self._opened.close()

    def _close_metrics(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
