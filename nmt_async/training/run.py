"""A run: builds the parts, takes up a checkpoint if there is one, and trains until it should stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.processes import Memory, ProcessCluster
from nmt_async.cluster.worker_process import WorkerSettings
from nmt_async.errors import RunFailure, UserError
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.flat import FlatLayout
from nmt_async.model.transformer import Transformer
from nmt_async.report.console import Display
from nmt_async.report.records import RunTitle, ValidReport
from nmt_async.sync.journal import Event
from nmt_async.sync.push import Update
from nmt_async.sync.server import ParameterServer
from nmt_async.text.dispatcher import Dispatcher
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.checkpoints import Checkpoints, ModelFiles
from nmt_async.training.metrics import MetricsFiles, Stretch
from nmt_async.training.moment import Every, Moment
from nmt_async.training.options import TrainOptions
from nmt_async.training.run_folder import JOURNAL, JournalFile, RunFolder
from nmt_async.training.stopping import Judge
from nmt_async.training.validation import Scores, ValidationSettings, Validator


class Interrupted(RunFailure):
    """A signal ended the run, which is saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def training_plan(options: TrainOptions, data: PreparedData) -> tuple[BatchPlan, np.ndarray]:
    """The batch plan over the pairs that are short enough, and those pairs' indexes in the store.

    Raises:
        UserError: no pair is short enough.
    """
    source, target = data.train.source.lengths, data.train.target.lengths
    fitting = np.flatnonzero(np.maximum(source, target) <= options.max_length)
    if not len(fitting):
        raise UserError(f"--max-length {options.max_length}: no training pair in {data.folder} is so short.")
    return BatchPlan(source[fitting], target[fitting], options.mini_batch_words, options.seed, fitting), fitting


def build_coordinator(
    options: TrainOptions,
    plan: BatchPlan,
    buffers: Tensor,
    record: Callable[[Event], None],
    warn: Callable[[str], None],
) -> Coordinator:
    """Server and dispatcher as the options say; ``buffers[0]`` holds the initial parameters."""
    server = ParameterServer(buffers, options.rule(), options.schedule(options.stop_after), options.settings())
    stop = options.stop_after
    last_epoch = int(stop.amount) if stop and stop.unit == "epochs" and stop.amount == int(stop.amount) else None
    return Coordinator(server, Dispatcher(plan, last_epoch), record, warn)


def model_configuration(options: TrainOptions, data: PreparedData) -> ModelConfiguration:
    """The model that the options name, for the data's vocabularies."""
    return options.configuration(data.source_vocabulary.size, data.target_vocabulary.size, data.joint)


class Run:
    """One start of a run, from its parts to its end.

    Args:
        options: as resolved.
        data: to train on.
        folder: of the run.
        display: shows what happens.
    """

    def __init__(self, options: TrainOptions, data: PreparedData, folder: RunFolder, display: Display) -> None:
        self.options = options
        self.data = data
        self.folder = folder
        self.display = display
        self.moment = Moment()
        self.judge = Judge(options.metric, options.early_stopping, options.keep_best)
        self._moments: dict[int, Moment] = {}
        self._validated = 0
        self._signal = 0
        devices = options.device_list()
        configuration = model_configuration(options, data)
        model = Transformer(configuration, options.seed)
        self.layout = FlatLayout(model)
        self.memory = Memory(len(devices), self.layout.size)
        self.memory.ring.tensor[0].copy_(self.layout.gather(model))
        self.journal = JournalFile(folder.path / JOURNAL, len(devices), options.threads())
        self.plan, _ = training_plan(options, data)
        self.coordinator = build_coordinator(
            options, self.plan, self.memory.ring.tensor, self.journal.record, self._warn
        )
        self.checkpoints = Checkpoints(
            folder.path,
            ModelFiles(configuration, self.layout, data.source_vocabulary.path, data.target_vocabulary.path),
            options.keep_last,
            options.keep_best,
        )
        self._resume()
        self.display.begin(self._title(devices))
        self.metrics = MetricsFiles(folder.path, self.moment.updates)
        self.validator = self._build_validator(configuration)
        self.stretch = Stretch(self.moment)
        self._earlier = self.moment.seconds
        self._begin = time.monotonic()
        settings = WorkerSettings(
            data.folder.resolve(), configuration, options.seed, options.label_smoothing, options.threads()
        )
        self.cluster = ProcessCluster(self.coordinator, self.memory, settings, devices, self._warn)

    def _build_validator(self, configuration: ModelConfiguration) -> Validator | None:
        if self.data.valid is None:
            return None
        options = self.options
        settings = ValidationSettings(
            self.data.folder.resolve(), configuration, options.valid_translate or options.metric != "cross-entropy",
            options.valid_beam_size, options.valid_sentences,
        )  # fmt: skip
        return Validator(settings, self.layout.size, self._warn)

    def _title(self, devices: list[str]) -> RunTitle:
        options = self.options
        return RunTitle(
            self.folder.path.resolve().name, options.sync_mode, options.pushes_summed, tuple(devices), options.preset,
            self.layout.parameters, options.stop_after, self.moment.seconds,
        )  # fmt: skip

    def _resume(self) -> None:
        found = self.checkpoints.newest(self._warn) if self.folder.resumed else None
        if found is None:
            return
        values, tensors = found
        self.coordinator.restore(values["coordinator"], tensors)
        self.moment = Moment(**values["moment"])
        self.judge.restore(values["judge"])
        self.display.say(f"{self.folder.path}: going on after update {self.moment.updates:,}.")

    def _warn(self, text: str) -> None:
        self.display.warn(text)
        if hasattr(self, "metrics"):
            self.metrics.note(f"[warn] {text}")

    def train(self) -> None:
        """Trains until the run should stop, and saves it.

        Raises:
            Interrupted: a signal ended it.
            RunFailure: workers died again and again, or the last checkpoint could not be written.
        """
        options = self.options
        report, save, validate = (
            Every(quantity, self.moment) for quantity in (options.disp_freq, options.save_freq, options.valid_freq)
        )
        if self._reason_to_stop() is None:
            with self._signals():
                for update in self.cluster.updates():
                    self._count(update)
                    if report.due(self.moment):
                        report.mark(self.moment)
                        self._report(self.cluster.waiting_shares())
                    self._hear_validation()
                    if validate.due(self.moment) and self.validator is not None and not self.validator.busy:
                        validate.mark(self.moment)
                        self._validate()
                    if save.due(self.moment) and not self.checkpoints.busy:
                        save.mark(self.moment)
                        self._save()
                    if self._reason_to_stop() is not None:
                        break
        self._finish()

    @property
    def decoding_parameters(self) -> Tensor:
        """The parameters to translate with: the moving average if there is one."""
        average = self.coordinator.server.optimizer.average
        return self.coordinator.server.parameters if average is None else average

    def _count(self, update: Update | None) -> None:
        seconds = self._earlier + time.monotonic() - self._begin
        if update is None:
            self.moment = Moment(**{**vars(self.moment), "seconds": seconds})
            return
        self.moment = self.moment.after(update, self.coordinator.server.progress.epochs, seconds)
        self.stretch.add(update)
        self.journal.flush()
        stop = self.options.stop_after
        self.display.progress(self.moment.share(stop), self.moment.updates)

    def _report(self, waiting_shares: list[float]) -> None:
        if not self.stretch.updates:
            return
        aside = len(self.coordinator.dispatcher.set_aside)
        report = self.stretch.report(self.moment, waiting_shares, aside)
        self.metrics.trained(report)
        self.display.trained(report)
        self.stretch = Stretch(self.moment)

    def _validate(self) -> None:
        assert self.validator is not None
        self._moments[self.moment.updates] = self.moment
        self._validated = self.moment.updates
        self.validator.begin(self.moment.updates, self.decoding_parameters)

    def _hear_validation(self, timeout: float | None = 0.0) -> None:
        finished = self.validator.result(timeout) if self.validator is not None else None
        if finished is not None:
            self._judge(*finished)

    def _judge(self, step: int, scores: Scores) -> None:
        assert self.validator is not None
        moment = self._moments.pop(step)
        named = {"cross-entropy": scores.cross_entropy, "bleu": scores.bleu, "chrf": scores.chrf}
        value = named[self.options.metric]
        keep = self.judge.judge(step, float("nan") if value is None else value)
        report = ValidReport(
            moment.seconds, moment.epoch, step, moment.source_tokens, moment.tokens, scores.cross_entropy,
            scores.bleu, scores.chrf, self.options.metric, self.judge.stalled, self.judge.best, scores.seconds,
        )  # fmt: skip
        self.metrics.validated(report)
        self.display.validated(report)
        if keep:
            self._guarded("the best model", lambda: self._save_best(step))

    def _save_best(self, step: int) -> None:
        assert self.validator is not None
        self.checkpoints.save_best(step, self.validator.frozen.tensor[0], self.judge.best_steps)

    def _save(self) -> None:
        self._guarded("a checkpoint", self._begin_checkpoint)

    def _guarded(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._warn(f"{what} could not be written ({error.strerror or error}); training goes on.")

    def _begin_checkpoint(self) -> None:
        values, tensors = self.coordinator.state()
        state: dict[str, Any] = {"coordinator": values, "moment": vars(self.moment), "judge": self.judge.state()}
        self.checkpoints.save(self.moment.updates, state, tensors, self.decoding_parameters)

    def _write_checkpoint(self) -> None:
        self._begin_checkpoint()
        self.checkpoints.wait()

    def _reason_to_stop(self) -> str | None:
        stop = self.options.stop_after
        if self._signal:
            return f"signal {signal.Signals(self._signal).name}"
        if stop is not None and self.moment.reaches(stop) and stop.unit != "epochs":
            return f"--stop-after {stop}"
        if stop is not None and stop.unit == "epochs" and self._epochs_done(stop.amount):
            return f"--stop-after {stop}"
        if self.judge.exhausted:
            return f"{self.judge.stalled} validations in a row without a better {self.judge.metric}"
        return None

    def _epochs_done(self, amount: float) -> bool:
        # Whole epochs end when each of their batches is applied, which the dispatcher knows best.
        last = self.coordinator.dispatcher.last_epoch
        if last is not None:
            return self.coordinator.finished and not self.coordinator.dispatcher.accumulated
        return self.moment.epochs >= amount

    def _finish(self) -> None:
        reason = self._reason_to_stop() or "the end of the data"
        waiting_shares = self.cluster.waiting_shares()
        last = self.cluster.stop()
        if last is not None:
            self._count(last)
        self.journal.flush()
        self._report(waiting_shares)
        if not self._signal:
            self._last_validation()
        try:
            if self.moment.updates:
                self._write_checkpoint()
        except OSError as error:
            raise RunFailure(
                f"{self.folder.path}: the last checkpoint could not be written ({error.strerror or error}); make room "
                f"and give the same command to go on from the checkpoint before."
            ) from None
        text = f"stopped at update {self.moment.updates:,} by {reason}"
        self.metrics.note(text)
        if self._signal:
            raise Interrupted(f"{text}; the run is saved, give the same command to go on.", self._signal)
        self.display.say(f"{text}; {self.folder.path} holds the run.")

    def _last_validation(self) -> None:
        if self.validator is None or not self.moment.updates:
            return
        self._await_validation(self.validator)
        if self._validated != self.moment.updates:
            self._validate()
            self._await_validation(self.validator)

    def _await_validation(self, validator: Validator) -> None:
        while validator.busy:
            self._hear_validation(timeout=0.5)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the run at the next update; a second SIGINT ends it at once."""

        def note(number: int, _frame: object) -> None:
            if self._signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def save_after_failure(self) -> None:
        """Saves what there is when the run cannot go on."""
        self.cluster.stop()
        if self.moment.updates:
            self._guarded("the checkpoint", self._write_checkpoint)

    def close(self) -> None:
        """Ends all processes and closes all files."""
        self.cluster.close()
        if self.validator is not None:
            self.validator.close()
        self.journal.close()
        self.metrics.close()


def train(options: TrainOptions, data_folder: Path, display: Display) -> None:
    """Trains as the options say.

    Raises:
        UserError: options that do not fit the data, the machine or the run that is there.
        RunFailure: the run could not go on; what there is is saved.
    """
    data = PreparedData.open(data_folder)
    folder = RunFolder(options.out, options, data)
    try:
        with display:
            run = Run(options, data, folder, display)
            try:
                run.train()
            except RunFailure as failure:
                if not isinstance(failure, Interrupted):
                    run.save_after_failure()
                raise
            finally:
                run.close()
    finally:
        folder.close()


def describe(options: TrainOptions, data_folder: Path) -> str:
    """What `train` would do: sizes, memory and batches an epoch, in a few lines."""
    data = PreparedData.open(data_folder)
    configuration = model_configuration(options, data)
    layout = FlatLayout(Transformer(configuration))
    plan, fitting = training_plan(options, data)
    devices, rule = options.device_list(), options.rule()
    epoch = plan.epoch(1)
    tokens = int(plan.target_lengths.sum())
    vectors = 2 * len(devices) + 1 + 3 + bool(options.exponential_smoothing) + (data.valid is not None)
    rows = {
        "model": f"{layout.parameters:,} parameters ({json.dumps(configuration.as_mapping())})",
        "training pairs": f"{len(fitting):,} of {len(data.train):,} (the others are longer than {options.max_length})",
        "target tokens an epoch": f"{tokens:,}",
        "batches an epoch": f"{len(epoch):,} of {tokens / len(epoch):,.0f} target tokens on average",
        "updates an epoch": f"{len(epoch) / rule.pushes:,.0f} of {rule.pushes} pushes each",
        "effective batch": f"{rule.pushes * tokens / len(epoch):,.0f} target tokens",
        "workers": f"{len(devices)} on {', '.join(dict.fromkeys(devices))}, {options.threads()} threads each",
        "shared memory": f"{vectors * 4 * layout.size / 2**20:,.0f} MiB for parameters, gradients and optimizer",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
