"""The part of a run that one machine has computed by itself, replayed; and the parts that any replay is made of."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.worker import Worker, out_of_memory
from nmt_async.errors import RunFailure, UserError
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.reading import read_object
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.prepared import PreparedData
from nmt_async.training.initial_model import first_model
from nmt_async.training.journal_file import Sitting, read_sittings
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import (
    Shared,
    buffers_needed,
    build_coordinator,
    model_configuration,
    residual_rows,
    training_plan,
)
from nmt_async.training.replay.sittings import (
    SittingWorker,
    check_environment,
    schedule_of,
    server_threads,
    sittings_of,
)
from nmt_async.training.resuming import rule_of, with_workers
from nmt_async.training.run_folder import DATA, read_options


class ReplayParts:
    """What a replay computes with, whichever machine of the run it is for.

    Args:
        options: with which the run was begun.
        data: that it was trained on.

    Attributes:
        initial: parameters (size,), as the run began with them.
    """

    def __init__(self, options: TrainOptions, data: PreparedData) -> None:
        self.options = dataclasses.replace(options, devices="cpu")  # another sitting may have had others
        self.data = data
        configuration = model_configuration(self.options, data)
        model = first_model(self.options, configuration, data)
        self.layout = FlatLayout(model)
        self.initial = self.layout.gather(model)
        self.plan, self.push = training_plan(self.options, data), self.options.push_settings()
        seed, smoothing = options.seed, options.label_smoothing
        self._worker = Worker(build_model(configuration), seed, smoothing, torch.device("cpu"), push=self.push)

    def worker(self, sitting: Sitting) -> SittingWorker:
        """What computes gradients as it did in that sitting."""
        return SittingWorker(self._worker, sitting)

    def as_saved(self, parameters: Tensor) -> Tensor:
        """What a model folder of the run holds of ``parameters`` (size,)."""
        quantization = self.options.quantization()
        if quantization is None:
            return parameters
        quantised = torch.empty_like(parameters)
        quantise_vector(parameters, self.layout, quantization, quantised)
        return quantised

    def coordinator(
        self, options: TrainOptions, record: Callable[[Event], None], workers: int, shared: Shared | None = None
    ) -> Coordinator:
        """As the run had one for so many workers; its stream ends where the options say if machines share it."""
        buffers = torch.zeros(buffers_needed(options.corrections(), workers, simulated=True), self.layout.size)
        buffers[0].copy_(self.initial)
        residuals = residual_rows(self.push, workers, self.layout.size)
        return build_coordinator(
            options, self.plan, self.layout, buffers, record, lambda _: None, endless=shared is None,
            residuals=residuals, shared=shared,
        )  # fmt: skip


class AloneReplay:
    """A replay of events that one machine has recorded by itself.

    Args:
        run: its folder.
        parts: to compute with.
        header: of its journal.
        events: those that stand and are to happen again.
        every: events of the journal, also those that a resume made void.

    Raises:
        UserError: it cannot be replayed here.
    """

    def __init__(
        self, run: Path, parts: ReplayParts, header: Mapping[str, Any], events: Sequence[Event], every: Iterable[Event]
    ) -> None:
        self.parts = parts
        self.events = events
        first = _first_sitting(run, events, every)
        self._sittings = sittings_of(run, dict(header), {first, *_later_sittings(events)}, parts.options)
        check_environment(run, self._sittings.values())
        options = parts.options
        self._schedules = {number: schedule_of(run, options, each) for number, each in self._sittings.items()}
        self._worker = parts.worker(self._sittings[first])
        self._begun_with = int(header["workers"])
        self._replay = Replay(self._build, self._worker, parts.data.train, self._begun_with, self._begin_sitting)
        self._begin_sitting(first)

    def _build(self, record: Callable[[Event], None], workers: int) -> Coordinator:
        return self.parts.coordinator(with_workers(self.parts.options, workers), record, workers)

    def _begin_sitting(self, number: int) -> None:
        """From here on threads, arithmetic and schedule are those of another sitting."""
        self._worker.sitting = self._sittings[number]
        torch.set_num_threads(server_threads(self.parts.options, self._sittings[number]))
        self.coordinator.server.schedule = self._schedules[number]

    @property
    def coordinator(self) -> Coordinator:
        """As it is now."""
        return self._replay.coordinator

    def in_the_end(self) -> Coordinator:
        """One like that at the end of the replay."""
        last = _last_workers(self._begun_with, self.events)
        return self.coordinator if last == self._begun_with else self._build(lambda _: None, last)

    def run(self, tell: Callable[[int], None]) -> None:
        """Lets all happen again.

        Args:
            tell: takes the version of the parameters after each event.

        Raises:
            RunFailure: the journal cannot have happened.
        """
        self._replay.run(self.events, tell)


@contextlib.contextmanager
def own_threads(run: Path) -> Iterator[None]:
    """What is inside may change with how many threads this process computes, and has to fit into its memory.

    Raises:
        RunFailure: it does not fit.
    """
    before = torch.get_num_threads()
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunFailure(f"{run} cannot be replayed here: memory does not hold a gradient of each worker.") from None
    finally:
        torch.set_num_threads(before)


def options_to_replay(run: Path) -> TrainOptions:
    try:
        options = read_options(run)
        rule_of(options)
        return options
    except UserError as error:
        problem = str(error).removeprefix("--out ").partition("; the run cannot be resumed")[0]
        raise UserError(f"{problem}; give the folder of a run (train --out).") from None


def data_to_replay(run: Path, moved: Path | None) -> PreparedData:
    """The data that the run was trained on."""
    try:
        noted = read_object(run / DATA)
        folder, fingerprint = Path(noted["folder"]), noted["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(f"{run / DATA} cannot be read: nobody knows on which data the run was trained.") from None
    if moved is None and not os.path.isdir(folder):
        raise UserError(f"the data of {run} are not in {str(folder)[:300]} any more; say with --data where they are.")
    data = PreparedData.open(moved or folder)
    if data.fingerprint != fingerprint:
        raise UserError(f"{data.folder} holds other data than those of {run}; give its own with --data.")
    return data


def events_until(update: int, events: Sequence[Event]) -> list[Event]:
    """The events up to the update, and the workers that it made restart."""
    ends = (place for place, event in enumerate(events) if event.kind is Kind.UPDATED and event.version == update)
    end = next(ends) + 1
    while end < len(events) and events[end].kind is Kind.RESTARTED:
        end += 1
    return list(events[:end])


def _first_sitting(run: Path, standing: Sequence[Event], events: Iterable[Event]) -> int:
    """The number of the sitting in which the journal begins; 0 for one of version 0.1, which noted none.

    Args:
        standing: the events that are replayed.
        events: all events of the journal, also those that a resume made void.
    """
    if standing[0].kind is Kind.RESUMED:
        return standing[0].tokens
    return 1 if read_sittings(run) and 1 not in _later_sittings(events) else 0


def _later_sittings(events: Iterable[Event]) -> set[int]:
    """The numbers of the sittings that went on; 0 for those of version 0.1."""
    return {event.tokens for event in events if event.kind is Kind.RESUMED}


def _last_workers(first: int, standing: Sequence[Event]) -> int:
    """How many workers the last of the sittings had that are replayed; ``first`` if as many as the first."""
    told = [event.worker for event in standing if event.kind is Kind.RESUMED and event.worker]
    return told[-1] if told else first
