"""What ``train`` does: checks options, opens the run's folder and trains; if it cannot go on, saves what there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nmt_async.display.console import Display
from nmt_async.display.live import display_for
from nmt_async.errors import Diverged, RunFailure, UserError
from nmt_async.options import check_together, from_mapping
from nmt_async.quantity import Quantity
from nmt_async.text.prepared import PreparedData
from nmt_async.training.cluster_options import prepare_children
from nmt_async.training.initial_model import initial_model
from nmt_async.training.interruptions import DisconnectableDisplay, Interrupted
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import model_configuration, training_plan, within_memory
from nmt_async.training.run import Run, Unsaved
from nmt_async.training.run_folder import RunFolder, settled
from nmt_async.training.tensorboard import require_tensorboard


def train(data: str | Path, display: Display | None = None, **options: Any) -> Path:
    """Trains on the prepared folder ``data``, as ``nmt-async train`` does; the run's folder.

        train("data", out="run", sync_mode="hybrid", accumulate=4, stop_after="20k")

    Args:
        display: shows what happens; by default standard error, as the command does.
        options: those of the command, by their names with underscores; values as typed, or of their types.

    Raises:
        UserError: options that are not known, or that do not fit the data, the machine or the run that is there.
        Diverged: parameters or gradients are not finite; the last good checkpoint is kept.
        RunFailure: the run could not go on; what there is is saved.
    """
    given = from_mapping(TrainOptions, {name: _as_written(value) for name, value in options.items()}, "train()")
    train_run(given, Path(data), display_for(sys.stderr) if display is None else display)
    return given.out


def _as_written(value: Any) -> Any:
    """A value as a configuration file has it."""
    return str(value) if isinstance(value, Quantity) else value


def train_run(options: TrainOptions, data_folder: Path, display: Display) -> None:
    """Trains as the options say.

    Raises:
        UserError: options that do not fit the data, the machine or the run that is there.
        Diverged: parameters or gradients are not finite; the last good checkpoint is kept.
        RunFailure: the run could not go on; what there is is saved.
    """
    check_together(options)
    prepare_children(options)
    data = PreparedData.open(data_folder)
    if data.valid is None and options.early_stopping:
        raise UserError(f"--early-stopping needs a validation set, and {data_folder} was prepared without one.")
    reason = options.devices_reason()
    options = settled(options)
    # Mistakes that these find must not leave a run folder with them behind.
    training_plan(options, data)
    configuration = model_configuration(options, data)
    with within_memory():
        model = initial_model(options, configuration, data)
    options.rule()
    if options.tensorboard:
        require_tensorboard()
    folder = RunFolder(options.out, options, data)
    display = DisconnectableDisplay(display)
    try:
        with display:
            with within_memory():
                run = Run(options, data, folder, model, display, reason)
                del model  # its parameters are in shared memory now
            try:
                run.train()
            except (Interrupted, Unsaved):
                raise
            except RunFailure as failure:
                ending = Diverged if isinstance(failure, Diverged) else RunFailure
                raise ending(run.save_after_failure(failure)) from None
            finally:
                run.close()
    finally:
        folder.close()
