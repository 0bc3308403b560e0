"""Machines that share a run, killed and stopped at random moments: ``make soak-machines``.

After each strike those that are left must end by themselves, or go on without the one that was struck where the way
allows it; then the run goes on, on as many machines as a seed draws.
In the end the journals of all machines must say, with the newest checkpoint, where every batch is. Exit code 1 if
anything is not as it should be.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from subprocess import Popen, TimeoutExpired

from moments import fault_seed
from training_runs import events_of, prepare_small, start_typed

from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import checkpoint_damages, read_state
from nmt_async.sync.between.joint_journal import joint
from nmt_async.sync.between.lineage import Start, is_void, starts_of
from nmt_async.sync.between.ways import WAYS
from nmt_async.text.plan import BatchId
from nmt_async.training.journal_file import JOURNAL, read_journal
from nmt_async.training.sharing import folder_of, starts_in

TIMEOUT = 3.0
"""Seconds without a sign of life after which a machine is given up."""

HANG = 60.0
"""Seconds after which one that has not ended hangs."""

FRAGMENTS = "local in fragments"


@dataclass
class Ordeal:
    """One run through strikes.

    Args:
        data: prepared.
        run: its folder.
        random: draws everything.
    """

    data: Path
    run: Path
    random: Random
    strikes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0
    went_on: int = 0

    def start(self, machines: int, way: str) -> list[Popen[str]]:
        """So many trainers on a new meeting point."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{found.getsockname()[1]}"
        mode: dict[str, object] = {"sync_mode": "sync"} if way == "sync" else {"sync_mode": "hybrid", "accumulate": 2}
        if way.startswith("local"):
            mode["local_updates"] = 4
        if way == FRAGMENTS:
            mode |= {"outer_fragments": 2, "outer_dtype": "bfloat16"}
        options = {
            "nodes": machines,
            "rendezvous": place,
            "between": way.split()[0],
            "machine_timeout": f"{TIMEOUT / 60}min",
        }
        options |= {"workers": 1, "save_freq": "7", "disp_freq": "5", "valid_freq": "1M"}
        started = [start_typed(self.data, self.run, node_rank=0, **mode, **options)]
        until = time.monotonic() + HANG
        while not listens(place) and time.monotonic() < until:  # so that it is the meeting point
            time.sleep(0.05)
        return started + [
            start_typed(self.data, self.run, node_rank=rank, **mode, **options) for rank in range(1, machines)
        ]

    def strike(self, way: str) -> None:
        """A sitting that one machine does not survive."""
        machines = self.start(self.random.choice((2, 2, 3)), way)
        who, kind = self.random.choice(machines), self.random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP))
        self._await_training(machines)
        before = {rank: self._starts(rank) for rank in range(len(machines))}
        time.sleep(self.random.uniform(0.0, 3.0))
        if who.poll() is not None:
            said = who.communicate()[1][-500:]
            self.wrong.append(f"a machine ended with {who.returncode} before it was struck: {said}")
        who.send_signal(kind)
        begin = time.monotonic()
        self.strikes[kind.name] = self.strikes.get(kind.name, 0) + 1
        others = {rank: machine for rank, machine in enumerate(machines) if machine is not who}
        if way.startswith("local") and who is not machines[0]:
            self._go_on(others, before, begin)
        else:
            for machine in others.values():
                self._end(machine, begin)
        who.kill()
        who.communicate()
        self.check()

    def _await_training(self, machines: list[Popen[str]]) -> None:
        """Until each machine has recorded what it does, or one has ended."""
        folders = [folder_of(self.run, rank) for rank in range(len(machines))]
        before = [written(folder) for folder in folders]
        until = time.monotonic() + HANG
        while time.monotonic() < until and all(machine.poll() is None for machine in machines):
            time.sleep(0.1)
            if all(written(folder) > size for folder, size in zip(folders, before, strict=True)):
                return

    def _starts(self, rank: int) -> int:
        """How often the machine of this rank has begun."""
        folder = folder_of(self.run, rank)
        return len(starts_in(read_journal(folder / JOURNAL)[1])) if written(folder) else 0

    def _go_on(self, others: dict[int, Popen[str]], before: dict[int, int], begin: float) -> None:
        """Without the machine that was struck; then a signal to one of them pauses all."""
        until = time.monotonic() + HANG
        while any(self._starts(rank) == before[rank] for rank in others) and time.monotonic() < until:
            time.sleep(0.1)
        self.longest = max(self.longest, time.monotonic() - begin)
        self.went_on += 1
        time.sleep(self.random.uniform(0.0, 3.0))
        self.random.choice(list(others.values())).send_signal(signal.SIGTERM)
        for machine in others.values():
            self._end(machine, None, 143)

    def _end(self, machine: Popen[str], begin: float | None, code: int = 1) -> None:
        try:
            _, said = machine.communicate(timeout=HANG)
        except TimeoutExpired:
            machine.kill()
            machine.communicate()
            self.wrong.append("a machine hung after another one was struck")
            return
        if begin is not None:
            self.longest = max(self.longest, time.monotonic() - begin)
        if machine.returncode != code or "machine" not in said:
            self.wrong.append(f"a machine ended with {machine.returncode}: {said[-500:]}")

    def check(self) -> None:
        """Where every batch is, by the journals of all machines and the state that the run would go on from."""
        folders = [self.run, *sorted(self.run.glob("machine-*"))]
        journals = [events_of(folder) for folder in folders if (folder / "journal").exists()]
        known = {start for events in journals for start in starts_in(events)}
        newest = None
        for folder in folders:
            for version, step in folders_by_update(folder / "checkpoints", "step").items():
                if checkpoint_damages(step):
                    continue
                state = read_state(step)[0]["coordinator"]
                starts = starts_of(state["starts"])
                if not is_void(starts, version, known) and (newest is None or (starts[-1], version) > newest[0]):
                    newest = (starts[-1], version), state
        if newest is None:
            return
        (start, version), state = newest
        try:
            found = set(joint(journals, Start(start.number + 1000, version)))
        except ValueError as error:
            self.wrong.append(f"counted twice: {error}")
            return
        position = BatchId(*state["dealing"]["position"])
        to_deal = {BatchId(*batch) for batch in state["dealing"]["recalled"]}
        aside = {BatchId(*batch) for batch in state["dealing"]["set_aside"]}
        known_of = {*found, *to_deal}
        most = {epoch: max(batch.number for batch in known_of if batch.epoch == epoch) for epoch, _ in known_of}
        all_of_them = {BatchId(epoch, number) for epoch, last in most.items() for number in range(last + 1)}
        before = {batch for batch in all_of_them if batch < position}
        if lost := before - found - to_deal - aside:
            self.wrong.append(f"lost: {sorted(lost)[:5]} at version {version}")
        if twice := found & to_deal:
            self.wrong.append(f"counted twice: {sorted(twice)[:5]} at version {version}")


def listens(place: str) -> bool:
    """Whether somebody is at HOST:PORT."""
    host, _, port = place.partition(":")
    with socket.socket() as found:
        return found.connect_ex((host, int(port))) == 0


def written(folder: Path) -> int:
    """Bytes of a machine's journal."""
    return (folder / JOURNAL).stat().st_size if (folder / JOURNAL).exists() else 0


def main(words: list[str] | None = None) -> int:
    """As many strikes as asked for; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args(words)
    seed = fault_seed() if arguments.seed is None else arguments.seed
    random = Random(seed)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nmt-machines-") as folder:
        data = prepare_small(Path(folder))
        ways = [*WAYS, FRAGMENTS]
        ordeals = {way: Ordeal(data, Path(folder) / way, random) for way in ways}
        for number in range(arguments.kills):
            way = ways[number % len(ways)]
            ordeals[way].strike(way)
    wrong = [f"{way}: {what}" for way, ordeal in ordeals.items() for what in ordeal.wrong]
    strikes = {kind: sum(o.strikes.get(kind, 0) for o in ordeals.values()) for kind in ("SIGKILL", "SIGSTOP")}
    print(f"machines killed   {strikes['SIGKILL']}")
    print(f"machines stopped  {strikes['SIGSTOP']}")
    for word, name in (("lost", "batches lost"), ("counted twice", "batches twice"), ("hung", "hangs")):
        print(f"{name:<16}  {sum(f'{word}' in what for what in wrong)}")
    print(f"else wrong        {sum(not any(w in what for w in ('lost', 'counted twice', 'hung')) for what in wrong)}")
    longest = max(ordeal.longest for ordeal in ordeals.values())
    print(f"longest silence   {longest:.1f} s until the others had ended or gone on, with a timeout of {TIMEOUT:g} s")
    print(f"went on           {sum(ordeal.went_on for ordeal in ordeals.values())} times without the machine")
    print(f"seconds           {time.monotonic() - begin:.0f}; seed {seed}")
    for what in wrong:
        print(what)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
