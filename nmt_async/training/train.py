"""What ``train`` does: checks options, opens the run's folder and trains; if it cannot go on, saves what there is."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nmt_async.display.console import Display
from nmt_async.errors import Diverged, RunFailure, UserError
from nmt_async.options import check_together
from nmt_async.process import fork_server
from nmt_async.text.prepared import PreparedData
from nmt_async.training.initial import initial_model
from nmt_async.training.lasting import LastingDisplay
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import model_configuration, training_plan, within_memory
from nmt_async.training.run import Run, Unsaved
from nmt_async.training.run_folder import RunFolder, settled
from nmt_async.training.signals import Interrupted
from nmt_async.training.tensorboard import require_tensorboard

CHILDREN = ("nmt_async.cluster.worker_process", "nmt_async.training.validation")
"""What the processes of a run import."""


def prepare_children(options: TrainOptions) -> None:
    """Begins to start what the run's processes are forked from: it imports beside this process, which can go on."""
    if options.cluster == "processes":
        with contextlib.suppress(OSError):  # the first child that cannot be started says so
            fork_server.prepare(*CHILDREN)


def train(options: TrainOptions, data_folder: Path, display: Display) -> None:
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
    display = LastingDisplay(display)
    try:
        with display:
            with within_memory():
                run = Run(options, data, folder, model, display)
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
