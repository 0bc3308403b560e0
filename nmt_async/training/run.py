"""A run: builds the parts, takes up a checkpoint if there is one, and trains until it should stop."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from nmt_async.checkpoints.run_checkpoints import Checkpoints, ModelFiles
from nmt_async.cluster.cluster import Cluster
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.sharding import sentence
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.display.console import Display
from nmt_async.display.reports import MachinesReport, RunTitle, ValidReport, worker_places
from nmt_async.errors import Diverged, RunFailure, UserError, shown
from nmt_async.model.configuration import ModelConfiguration, model_title
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.quantity import Quantity
from nmt_async.reading import as_dataclass
from nmt_async.sync.journal import Event
from nmt_async.sync.push import Update
from nmt_async.text.prepared import PreparedData
from nmt_async.training.expectation import expected_lines
from nmt_async.training.interruptions import Interrupted, MayFail, StopSignals
from nmt_async.training.journal_file import JOURNAL, JournalFile, note_sitting
from nmt_async.training.metrics import Every, MetricsFiles, Moment, ReportPeriod, corpus_counts
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import (
    Tell,
    arithmetic_of,
    build_coordinator,
    model_configuration,
    setup_for,
    training_plan,
)
from nmt_async.training.resuming import change_text
from nmt_async.training.run_folder import Ending, RunFolder
from nmt_async.training.saving import Saving, Soundness, StateOfRun
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
    """

    leads = True
    """Whether this machine validates and saves: of those that share a run one does."""

    def __init__(
        self, options: TrainOptions, data: PreparedData, folder: RunFolder, model: TranslationModel, display: Display,
        devices_reason: str = "",
    ) -> None:  # fmt: skip
        self.options = options
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
        self.setup = setup_for(options, self.layout, self._warn)
        opened.callback(self.setup.close)
        self.setup.buffers[0].copy_(self.layout.gather(model))
        self.period = ReportPeriod(self.moment)
        self.journal = JournalFile(folder.path / JOURNAL, len(devices), options.threads())
        opened.callback(self.journal.close)
        self._note_sitting = functools.partial(
            note_sitting, folder.path, options.threads(), devices, options.stop_after,
            arithmetic_of(options),
        )  # fmt: skip
        self.plan = training_plan(options, data)
        self.coordinator = self._build_coordinator()
        self.checkpoints = Checkpoints(
            folder.path,
            ModelFiles(configuration, self.layout, *folder.vocabularies, quantization=options.quantization()),
            options.keep_last,
            options.keep_best,
        )
        opened.callback(self.checkpoints.close)
        self.saving = Saving(self.checkpoints, self._may_fail, time.monotonic)
        judge = Judge(options.metric, options.early_stopping, options.keep_best)
        self.validations = Validations(self._build_validator(configuration), judge, self._tell, self._keep)
        opened.callback(self.validations.close)
        validating, held = self._resume()
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
            options.push_settings(), options.computed_with(), options.precision,
        )  # fmt: skip
        self.cluster = self._build_cluster(settings, opened)
        opened.callback(self.cluster.close)
        if held is not None:
            with self._takes_up():
                self.cluster.restore(*held)
        if validating and self.validations.possible:
            self._validate()

    def _build_coordinator(self) -> Coordinator:
        return build_coordinator(
            self.options, self.plan, self.layout, self.setup.buffers, self._record, self._warn,
            residuals=self.setup.residuals,
        )  # fmt: skip

    def _build_cluster(self, settings: WorkerSettings, opened: contextlib.ExitStack) -> Cluster:  # noqa: ARG002
        """The workers; what is to be closed beside them goes into ``opened``."""
        return self.setup.cluster(self.coordinator, settings, Tell(self._warn, self._note))

    def _build_validator(self, configuration: ModelConfiguration) -> Validator | None:
        if self.data.valid is None or not self.leads:
            return None
        options = self.options
        settings = ValidationSettings(
            self.data.folder.resolve(), configuration, options.valid_translate or options.metric != "cross-entropy",
            options.valid_beam_size, options.valid_sentences, options.quantization(),
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
        return None

    def _expect(self) -> None:
        """Says where vectors lie, if they are cut, and what the updates will be."""
        earlier = self.folder.earlier
        change = change_text(earlier, self.options, self.plan) if earlier else ""
        for line in filter(None, [change, sentence(self.setup.shards), *expected_lines(self.options, self.plan)]):
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
            self._begin_checkpoint(self._state())
        self.period.stalled(self.cluster.seconds - begin)

    def _settled(self) -> bool:
        """Whether there is a state to save."""
        return True

    @property
    def decoding_parameters(self) -> Tensor:
        """The parameters to translate with: the moving average if there is one."""
        average = self.coordinator.server.optimizer.average
        if average is not None:
            return average
        return self.coordinator.parameters

    def _count(self, update: Update | None) -> None:
        seconds = self._earlier + self.cluster.seconds
        if update is None:
            self.moment = Moment(**{**vars(self.moment), "seconds": seconds})
            return
        of = corpus_counts(update, self.plan, self.data)
        self.moment = self.moment.after(update, self.coordinator.server.progress.epochs, seconds, of)
        self.period.add(update)
        self._latest_gradient = update.gradient_norm * update.tokens
        self._may_fail("writing the journal", self.journal.flush)
        stop = self.options.stop_after
        self.display.progress(self.moment.share(stop), self.moment.updates)

    def _report(self) -> None:
        if not self.period.updates:
            return
        aside = len(self.coordinator.ledger.set_aside)
        shares, seconds = self.cluster.waiting_shares(), self.cluster.update_seconds()
        report = self.period.report(self.moment, shares, aside, seconds, self.cluster.reading_seconds())
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

    def _state(self) -> StateOfRun:
        """What a checkpoint stores now; not copied."""
        values, tensors = self.coordinator.state()
        held, held_tensors = self.cluster.state()
        state: dict[str, Any] = {
            "coordinator": values, "cluster": held, "moment": vars(self.moment), "stretch": self.period.state(),
            "validating": self.validations.at(self.moment.updates), **self.validations.state(),
        }  # fmt: skip
        return StateOfRun(self.moment.updates, state, tensors | held_tensors, self.decoding_parameters)

    def _begin_checkpoint(self, state: StateOfRun) -> None:
        """Begins to save; see `Checkpoints.save`."""
        self._may_fail("writing the journal", self.journal.flush)
        # A resume says how many of the journal's events still stand, so they must be there.
        first = functools.partial(self.journal.secure, self.journal.recorded)
        best = self.validations.judge.best_steps
        self.saving.begin(state, best, first)

    def _write_checkpoint(self, state: StateOfRun) -> None:
        self.saving.settle(self.validations.judge.best_steps)
        self._begin_checkpoint(state)
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
        """Whether training ends now."""
        return self._reason_to_stop() is not None

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
                self._write_checkpoint(self._state())
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
        """Whether a signal ends the run."""
        return bool(self.signals.number)

    def _others_reason(self) -> str:
        """Why this machine ends, if another one does."""
        return ""

    def _note_end(self, ending: Ending, reason: str) -> None:
        self._may_fail("noting how the run ended", lambda: self.folder.ended(ending, reason))

    def save_after_failure(self, failure: RunFailure) -> str:
        """Saves what there is when the run cannot go on; ``failure`` and a sentence that says what is saved."""
        self._stop_cluster(goes_on=True)
        self._report()
        text = f"{failure} {self._save_if_sound()}"
        self._may_fail("writing the log", lambda: self.figures.note(f"[error] {text}"))
        self._note_end("diverged" if isinstance(failure, Diverged) else "failed", text)
        return text

    def _state_to_save(self) -> StateOfRun | None:
        """The latest that there is where the run cannot go on; None if there is none."""
        return self._state()

    def _save_if_sound(self) -> str:
        """Parameters whose gradients are not finite are not saved: they would take the place of better ones."""
        try:
            state = self._state_to_save()
            if state is not None and state.updates and self.soundness.sound:
                self._write_checkpoint(state)
                return f"The run is saved at update {state.updates:,}."
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
