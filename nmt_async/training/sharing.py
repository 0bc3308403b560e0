"""What a run does because other machines share it: it is started alike everywhere, and goes on from one state.

Each machine writes a run's folder of its own: the first one RUN, the others RUN/machine-1 and so on, where RUN is a
path on each machine, be it on a disk that they share or not. Checkpoints are written by the first machine; by the
others only if the run cannot go on, so that none is lost with the first.
"""

from __future__ import annotations

import dataclasses
import platform
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nmt_async import __version__
from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages, read_state, read_values
from nmt_async.errors import UserError, shown
from nmt_async.machines.exchange import Exchange
from nmt_async.machines.group import Alone
from nmt_async.options import dump_yaml, flag_of, yaml_mapping
from nmt_async.sync.between.lineage import Start, is_void, landed_unheard, standing, start_of, starts_of
from nmt_async.sync.between.ways import Way
from nmt_async.sync.journal import Event, Kind, effective
from nmt_async.text.prepared import PreparedData
from nmt_async.training.journal_file import (
    JOURNAL,
    JournalFile,
    SharedStart,
    Sitting,
    append_sitting,
    read_journal,
)
from nmt_async.training.machine_options import OUTER
from nmt_async.training.options import TrainOptions, options_of_run
from nmt_async.training.run_folder import CONFIG, MACHINE, as_it_was_begun

OWN = frozenset((
    "out", "dry_run", "workers", "devices", "cpu_threads", "accumulate", "worker_timeout", "node_rank", "rendezvous",
    "machine_timeout", "disp_freq", "tensorboard",
))  # fmt: skip
"""Options that each machine may have to itself."""


class Peers(Protocol):
    """The machines of a run, as `nmt_async.machines.team.Team` has them.

    Attributes:
        rank: which of them this is.
        names: of all, by rank.
    """

    rank: int
    names: list[str]

    @property
    def leads(self) -> bool:
        """Whether this is the machine that validates and saves."""

    def agree(self, values: Mapping[str, str], what: Mapping[str, str]) -> None:
        """Makes sure that all machines were started alike."""

    def gather(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Plain values of every machine, by rank."""

    def spread(
        self, source: int, values: dict[str, Any] | None, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the machine ``source`` has, to all."""

    def exchange(self, way: Way) -> Exchange:
        """Begins the thread of the exchanges."""

    def leave(self, reason: str) -> None:
        """Tells the others why this machine cannot go on."""


class Here:
    """All machines are this one: it is what is left of several, or simulates them.

    Args:
        simulated: how many there are; None: this one alone.
    """

    rank, leads = 0, True

    def __init__(self, simulated: int | None = None) -> None:
        self.names = [f"machine {rank} (simulated)" for rank in range(simulated or 0)]
        self.names = self.names or [f"machine 0 ({socket.gethostname()[:200]})"]

    def agree(self, values: Mapping[str, str], what: Mapping[str, str]) -> None:
        """With itself."""

    def gather(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Its own, of each."""
        return [values] * len(self.names)

    def spread(
        self, source: int, values: dict[str, Any] | None, tensors: dict[str, Tensor]  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:  # fmt: skip
        """What it has."""
        return values or {}, tensors

    def exchange(self, way: Way) -> Exchange:  # noqa: ARG002
        """With itself, at once."""
        return Exchange(Alone())

    def leave(self, reason: str) -> None:
        """There is nobody to tell."""


def folder_of(out: Path, rank: int) -> Path:
    """Where the machine of this rank writes."""
    return out if rank == 0 else out / f"{MACHINE}{rank}"


def run_of(folder: Path) -> Path:
    """The run of which ``folder`` may be a machine's."""
    return folder.parent if folder.name.startswith(MACHINE) else folder


def runs_in(run: Path) -> list[Path]:
    """The folders of machines that are here and hold a run: the first machine's first."""
    return [folder for folder in (run, *sorted(run.glob(f"{MACHINE}*"))) if (folder / CONFIG).exists()]


def started_alike(peers: Peers, options: TrainOptions, data: PreparedData) -> None:
    """Makes sure that all machines train the same.

    Args:
        options: settled.

    Raises:
        UserError: they do not; every machine says the same.
    """
    fields = [field for field in dataclasses.fields(TrainOptions) if field.name not in OWN]
    said = {field.name: str(getattr(options, field.name)) for field in fields}
    names = {field.name: flag_of(field) for field in fields}
    others = {"nmt-async": __version__, "torch": torch.__version__.partition("+")[0], "data": data.fingerprint}
    peers.agree({**others, **said}, {**names, "data": "data of the fingerprint"})


def unlike_processors(peers: Peers) -> str:
    """A sentence where the machines' processors round differently; empty if they do not."""
    mine = {"cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"}
    there = [str(values["cpu"]) for values in peers.gather(mine)]
    other = next((rank for rank, cpu in enumerate(there) if cpu != there[0]), None)
    if other is None:
        return ""
    return (
        f"{peers.names[other]} computes with {there[other]} and {peers.names[0]} with {there[0]}: their updates differ "
        f"in the last bits, and these differences add up until the run is started again, when all take up one state."
    )


def begun_with(peers: Peers, run: Path) -> TrainOptions | None:
    """With what the run was begun that the machines go on with, as the first of them knows that has it; None if none.

    Raises:
        UserError: a machine's configuration of it is damaged.
    """
    here = runs_in(run)
    mine = dump_yaml(as_it_was_begun(here[0])) if here else ""
    there = [values["options"] for values in peers.gather({"options": mine})]
    found = next(filter(None, there), None)
    return None if found is None else options_of_run(yaml_mapping(found.encode(), "--out"), "--out")


def newest_of_all(
    peers: Peers, run: Path, size: int, starts: Iterable[Start], warn: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The newest state that any machine has and that is not void, which all take up; None if there is none.

    Args:
        run: its folder, where other machines may have theirs, too.
        size: of the parameters.
        starts: that this machine's journal knows of.
        warn: takes a sentence for each damaged checkpoint that is passed over.

    Raises:
        UserError: there are checkpoints here, and none that can be used here or elsewhere.
    """
    mine = sorted(_checkpoints(run), reverse=True)
    said = [[list(start) for start in {*starts, *(start for found in mine for start in found.starts)}]]
    known = {start for there in peers.gather({"starts": said[0]}) for start in starts_of(there["starts"])}
    usable = (found for found in mine if not is_void(found.starts, found.version, known))
    best = next((found for found in usable if _is_whole(found.folder, size, warn)), None)
    order = [0, -1] if best is None else [best.number, best.version]
    there = [values["newest"] for values in peers.gather({"newest": order})]
    if max(there)[1] < 0:
        if mine:
            raise UserError(f"{run}: no checkpoint can be gone on with; choose another --out to begin anew.")
        return None
    source = there.index(max(there))
    state = read_state(best.folder) if best is not None and source == peers.rank else None
    return peers.spread(source, state[0] if state else None, state[1] if state else {})


class _Checkpoint(NamedTuple):
    """A checkpoint; the newest is the one of the latest start, and of that the latest version."""

    number: int
    version: int
    starts: tuple[Start, ...]
    folder: Path


def _checkpoints(run: Path) -> Iterator[_Checkpoint]:
    """Of this machine, and of others whose folders are on this disk; some may be damaged."""
    for folder in (run / "checkpoints", *sorted(run.glob(f"{MACHINE}*/checkpoints"))):
        for version, step in folders_by_update(folder, "step").items():
            try:
                starts = tuple(starts_of(read_values(step)["coordinator"].get("starts", ())))
            except NO_VALUES:
                starts = ()
            yield _Checkpoint(starts[-1].number if starts else 0, version, starts, step)


NO_VALUES = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading the values of a damaged checkpoint raises."""


def _is_whole(folder: Path, size: int, warn: Callable[[str], None]) -> bool:
    found = checkpoint_damages(folder, size)
    if found:
        warn(f"{folder}: {'; '.join(found)}; another checkpoint is used.")
    return not found


def starts_in(events: Iterable[Event]) -> set[Start]:
    """The starts that a journal knows of, since the run is shared."""
    return {start for event in events if (start := start_of(event)) is not None}


def from_the_first(peers: Peers, vector: Tensor) -> None:
    """``vector`` (size,) becomes that of the first machine: the last bits of what was drawn may differ."""
    _, tensors = peers.spread(0, {}, {"parameters": vector} if peers.leads else {})
    vector.copy_(tensors["parameters"])


def earlier_events(journal: Path) -> list[Event]:
    """What a machine's journal holds that stands, before its run goes on.

    Raises:
        UserError: the journal cannot be read.
    """
    if not journal.exists() or not journal.stat().st_size:
        return []
    try:
        return effective(read_journal(journal)[1])
    except ValueError as error:
        raise UserError(f"{journal} cannot be gone on with ({shown(str(error))}); choose another --out.") from None


def reconciled(events: Sequence[Event], starts: Sequence[Start], now: Start) -> tuple[int, Event | None]:
    """What of a machine's journal stands when its run goes on.

    Args:
        events: as `earlier_events` gives them.
        starts: of the run before.
        now: the one that begins.

    Returns:
        How many events stand; and the update that the machine did not hear of, which is to be recorded before that.
    """
    unheard = landed_unheard(events, [*starts, now])
    if unheard is not None:
        return sum(event.kind is not Kind.RESUMED for event in events) + 1, unheard
    return standing(events, [*starts, now]), None


def shared_start(options: TrainOptions, state: Mapping[str, Any]) -> SharedStart:
    """What is noted of a start.

    Args:
        options: settled.
        state: of the coordinator that all take up, of one machine that was alone or one of several; empty if none is.
    """
    events = state.get("events", state.get("ledger", {}).get("events"))
    return SharedStart({name: getattr(options, name) for name in ("between", *OUTER)}, state.get("machine", 0), events)


def simulated_journal(
    first: Path, rank: int, sitting: Sitting, workers: int, starts: Sequence[Start]
) -> tuple[JournalFile, int]:
    """The journal of another machine of a simulated cluster, begun or gone on with, and how many of its events stand.

    Args:
        first: the folder of the run, whose configuration is that of all its machines.
        sitting: that begins.
        starts: of the run, with that of the sitting.

    Raises:
        OSError: it could not be written.
        UserError: it cannot be gone on with.
    """
    folder = folder_of(first, rank)
    folder.mkdir(exist_ok=True)
    stands, unheard = reconciled(earlier_events(folder / JOURNAL), starts[:-1], starts[-1])
    journal = JournalFile(folder / JOURNAL, workers, sitting.threads)
    if unheard is not None:
        journal.record(unheard)
    append_sitting(folder, sitting)
    return journal, stands


def number_of_start(peers: Peers, latest: int) -> int:
    """Of the one that begins: one more than that of any machine.

    Args:
        latest: of this machine.
    """
    return 1 + max(int(values["start"]) for values in peers.gather({"start": latest}))
