"""What ``train`` does: checks options, opens the run's folder and trains; if it cannot go on, saves what there is."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nmt_async.display.console import Display
from nmt_async.display.live import display_for
from nmt_async.errors import Diverged, RunFailure, UserError
from nmt_async.machines.group import MachineLost
from nmt_async.machines.invitation import Invitation
from nmt_async.machines.team import Team
from nmt_async.options import check_together, from_mapping
from nmt_async.quantity import Quantity
from nmt_async.text.prepared import PreparedData
from nmt_async.training.batch_memory import without_auto
from nmt_async.training.cluster_options import prepare_children
from nmt_async.training.initial_model import initial_model
from nmt_async.training.interruptions import DisconnectableDisplay, Interrupted
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import checked_configuration, training_plan, within_memory
from nmt_async.training.run import Run, Unsaved
from nmt_async.training.run_folder import CONFIG, RunFolder, read_options, settled
from nmt_async.training.shared_run import SharedRun
from nmt_async.training.sharing import (
    Here,
    Peers,
    begun_with,
    folder_of,
    run_of,
    runs_in,
    started_alike,
    unlike_processors,
)
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
    if options.cluster == "simulated" and (options.nodes or 1) > 1:
        options.check_simulated()
        _check_shared(options)
        _train(options, data_folder, display, Here(options.nodes or 1))
        return
    invitation = options.invitation()
    if invitation is None:
        _train_alone(options, data_folder, display)
        return
    _check_shared(options)
    prepare_children(options)
    _train_with_others(options, invitation, data_folder, display)


def _train_with_others(options: TrainOptions, invitation: Invitation, data_folder: Path, display: Display) -> None:
    """With the machines that meet; where one is lost and the way allows it, with those that are left."""
    goes_on: Invitation | None = invitation
    folder: Path | None = None
    while goes_on is not None:
        met = time.monotonic()
        with Team(goes_on, options.machine_timeout_seconds, display.say) as team:
            display.say(f"this is {team.names[team.rank]} of {team.size}.")
            folder = folder or folder_of(options.out, team.rank)
            try:
                _train(replace(options, out=folder, nodes=team.size), data_folder, display, team)
                return
            except MachineLost as lost:
                if invitation.restarts or not _goes_on_without(folder):
                    raise
                display.warn(str(lost))
                goes_on = team.those_left()
                all_here = goes_on is not None and goes_on.machines == team.size
                if all_here and time.monotonic() - met < AGAIN:
                    raise  # it was no machine that failed, and it would fail again
    assert folder is not None
    display.warn("no other machine is left; this one goes on alone.")
    _train(replace(options, out=folder, nodes=1), data_folder, display, Here())


AGAIN = 600.0
"""Seconds after which machines that are all there may try again what failed."""


def _goes_on_without(run: Path) -> bool:
    """Whether the machines of the run go on without one that is lost, in the way in which they exchange."""
    return (run / CONFIG).exists() and read_options(run).way().local


def _check_shared(options: TrainOptions) -> None:
    """Raises UserError where machines cannot share what the options ask for."""
    if not options.way().takes(options.sync_mode):
        raise UserError(
            f"--sync-mode sync: its workers wait for the update that holds their pushes, and with --between "
            f"{options.between} nobody waits; give --sync-mode hybrid, or --between sync."
        )
    alone = {
        "--momentum-lookahead": (options.momentum_lookahead, "none", "a server keeps the momentum of its own workers"),
        "--push-dtype": (options.push_dtype, "float32", "what a push holds back is in the checkpoint of one machine"),
        "--drop-gradients": (options.drop_gradients, 0.0, "what a push holds back is in the checkpoint of one machine"),
    }
    if options.way().joins:
        alone["--max-staleness"] = (options.max_staleness, None, "an update there waits for nobody")
    if options.way().local:
        average = options.exponential_smoothing
        alone["--exponential-smoothing"] = (average, 0.0, "the average would not see what the outer step does")
    for flag, (value, without, reason) in alone.items():
        if value != without:
            raise UserError(f"{flag} {value}: not with several machines in --between {options.way().name}: {reason}.")


def _train_alone(options: TrainOptions, data_folder: Path, display: Display) -> None:
    """On one machine, which may be what is left of several."""
    shared = any(read_options(run).between is not None for run in runs_in(options.out))
    options.check_alone(shared)
    _train(replace(options, nodes=1) if shared else options, data_folder, display, Here() if shared else None)


def _train(options: TrainOptions, data_folder: Path, display: Display, peers: Peers | None) -> None:
    """Trains, with the machines that share the run if there are any; see `train_run`."""
    prepare_children(options)
    data = PreparedData.open(data_folder)
    if data.valid is None and options.early_stopping:
        raise UserError(f"--early-stopping needs a validation set, and {data_folder} was prepared without one.")
    reason = options.devices_reason()
    options = without_auto(options, data, display.say)
    begun = None if peers is None else begun_with(peers, run_of(options.out))
    options = settled(options, begun)
    if peers is not None:
        _check_shared(options)
    # Mistakes that these find must not leave a run folder with them behind.
    training_plan(options, data)
    configuration = checked_configuration(options, data)
    with within_memory():
        model = initial_model(options, configuration, data)
    options.rule()
    if options.tensorboard:
        require_tensorboard()
    if peers is not None:
        started_alike(peers, options, data)
        unlike = unlike_processors(peers)
        if unlike:
            display.warn(unlike)
    folder = RunFolder(options.out, options, data, begun)
    display = DisconnectableDisplay(display)
    try:
        with display:
            with within_memory():
                run = (
                    Run(options, data, folder, model, display, reason)
                    if peers is None
                    else SharedRun(options, data, folder, model, display, peers, reason)
                )
                del model  # its parameters are in shared memory now
            try:
                run.train()
            except (Interrupted, Unsaved):
                raise
            except RunFailure as failure:
                ending = next(kind for kind in (Diverged, MachineLost, RunFailure) if isinstance(failure, kind))
                text = run.save_after_failure(failure)
                if run.signals.number and ending is MachineLost:  # it would have ended anyway
                    raise Interrupted(text, run.signals.number) from None
                raise ending(text) from None
            finally:
                run.close()
    finally:
        folder.close()
