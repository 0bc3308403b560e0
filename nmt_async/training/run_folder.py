"""The folder of a run: who may write it, and which options it was begun with.

``config.yaml`` all options as resolved; ``data.json`` what it was trained on, ``source.model`` and ``target.model`` its
vocabularies; ``journal`` and ``sittings.jsonl`` the record of batches and updates (`journal_file`);
``metrics.jsonl`` and ``train.log`` the figures;
``checkpoints/`` and the pointers ``best`` and ``last``; ``outcome.json``, once training has ended, how it did.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import time
from pathlib import Path
from typing import IO, Any, Literal, get_args

from nmt_async.errors import RunFailure, UserError, shown
from nmt_async.model.configuration import DEFAULTS
from nmt_async.options import check_together, dump_yaml, flag_of, load_yaml
from nmt_async.reading import read_object
from nmt_async.text.prepared import PreparedData
from nmt_async.training.initial_model import adopted, as_begun
from nmt_async.training.machine_options import OUTER
from nmt_async.training.options import TrainOptions, options_of_run
from nmt_async.training.parts import training_plan
from nmt_async.training.resuming import check_batches, check_update, with_workers
from nmt_async.writing import HeldFolder, write_whole

CONFIG = "config.yaml"
MACHINE = "machine-"
"""Begins the name of the folder of another machine of the run, which may come first."""

DATA = "data.json"
OUTCOME = "outcome.json"
BEGUN = ("nodes", "workers", "accumulate")
"""Options that make an update together, as they were when the run was begun: on any number of machines it goes on with
that update, or the nearest."""

Ending = Literal["finished", "interrupted", "failed", "diverged"]
"""How training can end: as it was asked to, by a signal, because something failed, or because parameters or gradients
are not finite."""


class RunFolder:
    """A run's folder, locked against a second trainer until it is closed.

    Args:
        path: made if absent.
        options: of this start, settled; a run that is there already must have been begun with the same.
        data: that the run trains on.
        begun_with: the run's options where it is on other machines already, and this one joins them.

    Attributes:
        earlier: options of the sitting before, if the run goes on.

    Raises:
        UserError: another trainer is at it, it holds something else, or a run of other options or data.
        RunFailure: it could not be written.
    """

    def __init__(
        self, path: Path, options: TrainOptions, data: PreparedData, begun_with: TrainOptions | None = None
    ) -> None:
        self.path = path
        self.earlier = earlier_options(path, options, data)
        self.resumed = self.earlier is not None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("a")
        except OSError as error:
            raise UserError(
                f"--out {path}: the folder cannot be written ({(error.strerror or str(error)).lower()}); "
                f"choose another."
            ) from None
        if not _locked(self._lock):
            self._lock.close()
            raise UserError(
                f"--out {path}: another trainer is writing this run; wait for it, or choose another folder."
            ) from None
        try:
            self._write_beginnings(options, data, options if begun_with is None else begun_with)
            self._held = HeldFolder(path)
        except OSError as error:
            self._lock.close()
            raise RunFailure(
                f"--out {path}: the run's folder could not be written ({(error.strerror or str(error)).lower()}); "
                f"make room and give the same command again."
            ) from None

    def _write_beginnings(self, options: TrainOptions, data: PreparedData, begun_with: TrainOptions) -> None:
        path = self.path
        (path / "checkpoints").mkdir(exist_ok=True)
        self.vocabularies = (
            _copied(data.source_vocabulary.path, path / "source.model"),
            _copied(data.target_vocabulary.path, path / "target.model"),
        )
        noted = {"folder": str(data.folder.resolve()), "fingerprint": data.fingerprint}
        begun = _begun(path) or {name: getattr(begun_with, name) for name in BEGUN}
        write_whole(path / DATA, json.dumps({**noted, "begun": begun}))
        write_whole(path / CONFIG, dump_yaml(options))

    def check(self) -> None:
        """It still lies there.

        Raises:
            OSError: it was removed, moved or unmounted, or another lies in its place.
        """
        self._held.check()

    def begins(self) -> None:
        """Training begins: how the sitting before ended is not how this one did."""
        (self.path / OUTCOME).unlink(missing_ok=True)

    def ended(self, ending: Ending, reason: str) -> None:
        """Notes how training ended, for programs to read.

        Args:
            reason: in a sentence, for people.

        Raises:
            OSError: it could not be written, or another folder lies there, whose run did not end.
        """
        self.check()
        write_whole(self.path / OUTCOME, json.dumps({"ending": ending, "reason": reason}))

    def close(self) -> None:
        """Lets others have it."""
        self._held.close()
        self._lock.close()


def read_outcome(run: Path) -> tuple[Ending | None, str]:
    """How the training of the run in this folder ended, and why.

    None and no reason where that is not known: it has not ended, was killed, or an earlier version trained it.
    """
    try:
        values = read_object(run / OUTCOME)
        ending, reason = values["ending"], values["reason"]
    except (OSError, ValueError, LookupError):
        return None, ""
    return (ending, reason) if ending in get_args(Ending) and isinstance(reason, str) else (None, "")


def _locked(file: IO[str]) -> bool:
    """Whether the lock could be had. Who watches a run takes it for an instant, to see whether a trainer has it."""
    for wait in (0.05, 0.1, 0.2, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(wait)
    return False


def _copied(original: Path, copy: Path) -> Path:
    """A copy for the checkpoints, which must be complete even if the prepared folder is gone by then."""
    write_whole(copy, original.read_bytes())
    return copy


def earlier_options(path: Path, options: TrainOptions, data: PreparedData) -> TrainOptions | None:
    """With which options the run in ``path`` was begun, None if there is none and one can begin there.

    Args:
        options: settled, to begin or to go on with.

    Raises:
        UserError: it holds something else, or a run of other options or data.
    """
    if (path / CONFIG).exists():
        _check_entries(path)
        return _check_same(path, options, data)
    if path.exists():
        _check_unused(path)
    return None


def _check_unused(path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"--out {path}: there is a file of this name; choose another folder.")
    # A run that was killed while it began has its other files already.
    ours = {DATA, CONFIG, "checkpoints", "source.model", "target.model"}
    leftovers = [
        entry.name
        for entry in path.iterdir()
        if not entry.name.startswith((".", MACHINE)) and entry.name.removesuffix(".partial") not in ours
    ]
    if leftovers:
        raise UserError(f"--out {path}: this folder holds {shown(leftovers[0])} and is not a run; choose another.")


def _check_entries(path: Path) -> None:
    """A run writes, and removes, in its own folder alone: a link would lead it elsewhere, a pipe would hold it up."""
    for entry in path.iterdir():
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            what = "a link to another place" if entry.is_symlink() else "neither a file nor a folder"
            raise UserError(
                f"--out {path}: {entry.name} is {what}, and nothing that a run wrote; choose another folder."
            )


def _check_same(path: Path, options: TrainOptions, data: PreparedData) -> TrainOptions:
    begun_with = read_options(path)
    free = ("out", "dry_run", *(("workers", "accumulate") if options.cluster == "processes" else ()))
    # What follows from others where nobody names it comes last: the sentence is to be about what somebody typed.
    for field in sorted(dataclasses.fields(TrainOptions), key=lambda field: field.name == "weight_prediction"):
        before, now = getattr(begun_with, field.name), getattr(options, field.name)
        if field.name in free or field.metadata["changeable"] or before == now:
            continue
        raise UserError(
            f"--out {path}: that run was begun with {flag_of(field)} {before}, now it is {now}; give the same to "
            f"resume it, or another --out to begin anew."
        )
    try:
        before = read_object(path / DATA)
        folder, fingerprint = before["folder"], before["fingerprint"]
    except (OSError, ValueError, LookupError):
        raise UserError(f"{path / DATA} cannot be read; the run cannot be resumed, choose another --out.") from None
    if fingerprint != data.fingerprint:
        raise UserError(
            f"--out {path}: that run was begun on other data ({str(folder)[:300]}); choose another --out for this data."
        )
    check_batches(begun_with, options)
    shared = (options.nodes or 1, begun_with.nodes or 1) != (1, 1)
    before_it = as_it_was_begun(path) if shared else begun_with
    check_update(before_it, options, training_plan(options, data))
    return begun_with


def _begun(path: Path) -> dict[str, Any] | None:
    """What `BEGUN` names, as the run in ``path`` was begun; None where nobody noted it."""
    try:
        begun = read_object(path / DATA).get("begun")
    except (OSError, ValueError):
        return None
    if not isinstance(begun, dict) or any(type(begun.get(name)) not in (int, type(None)) for name in BEGUN):
        return None
    return {name: begun.get(name) for name in BEGUN}


def as_it_was_begun(path: Path) -> TrainOptions:
    """The options of the run in ``path``, with the update that it was begun with; see `read_options`."""
    options = read_options(path)
    begun = _begun(path)
    return options if begun is None or begun["workers"] is None else dataclasses.replace(options, **begun)


def read_options(path: Path) -> TrainOptions:
    """The options with which the run in ``path`` was begun; their ``out`` is where it is now.

    Raises:
        UserError: it is not a run, or its configuration is damaged.
    """
    try:
        if not (path / CONFIG).is_file():
            raise UserError(f"{path / CONFIG} is not a file")
        return dataclasses.replace(options_of_run(load_yaml(path / CONFIG), str(path / CONFIG)), out=path)
    except UserError as error:
        problem = str(error).removeprefix("--config: ").rstrip(".")
        raise UserError(f"--out {path}: {problem}; the run cannot be resumed, choose another --out.") from None


def settled(options: TrainOptions, begun_with: TrainOptions | None = None) -> TrainOptions:
    """The options with the counts that nobody gave: those of the run that is resumed, else what this machine has.

    So a run goes on as it was begun on a machine with other cores or devices too; with other workers it goes on with
    the same update.

    Args:
        begun_with: the run's options where its folder is not on this machine, but on another one that shares it.

    Raises:
        UserError: devices that are not there, a run whose configuration is damaged, or an option that means nothing
            beside what nobody gave.
    """
    shared = options.nodes is not None
    if (options.out / CONFIG).exists():
        begun_with = as_it_was_begun(options.out) if shared else read_options(options.out)
    if begun_with is not None:
        if options.nodes != begun_with.nodes and options.accumulate == begun_with.accumulate:
            options = dataclasses.replace(options, accumulate=None)  # as it was typed for so many machines
        begun_with = with_workers(begun_with, options.workers, options.nodes)
        options = as_begun(options, begun_with)
        names = ["workers", "accumulate", "cpu_threads", "optimizer", "weight_prediction"]
        names += [*OUTER, "between"] if options.between in (None, begun_with.between) else []
        names += ["profile"] if options.cluster == "simulated" else []
        # Before there was a second model, these defaults were written out.
        names += [name for name, default in DEFAULTS.items() if getattr(begun_with, name) == default]
        options = dataclasses.replace(
            options, **{name: getattr(begun_with, name) for name in names if getattr(options, name) is None}
        )
    options = adopted(options)
    if options.nodes is not None and options.between is None:
        options = dataclasses.replace(options, between=options.way().name)
    options = dataclasses.replace(
        options, devices=options.devices or ",".join(dict.fromkeys(options.device_list())),
        workers=len(options.device_list()), accumulate=options.rule().accumulate, cpu_threads=options.threads(),
        optimizer=options.settings().name, weight_prediction=options.settled_prediction(),
        profile=options.cluster_profile().name if options.cluster == "simulated" and not options.profile
        else options.profile,
    )  # fmt: skip
    check_together(options)  # with what a run that is resumed, or this machine, has said meanwhile
    return options
