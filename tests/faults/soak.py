"""Runs through faults at random moments for as long as is asked, and counts what they cost: ``make soak``.

First a thousand kills in virtual time; then real runs, one after another, each through faults of every kind. A seed
repeats the same faults in the same runs after the same waits. Exit code 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import torch
from moments import fault_seed
from ordeal import MODES, Ordeal, drawn_trial
from strikes import DAMAGES, KILLS, STRIKES
from training_runs import prepare_small
from virtual_runs import run_until

FAULTS_A_RUN = 6


class Soak:
    """What all runs came to.

    Args:
        seed: of everything random.
        folder: for the data and the runs; those that went wrong stay there.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.faults: Counter[str] = Counter()
        self.killed = self.lost = self.twice = self.hangs = self.other = self.rounds = self.compared = self.stopped = 0
        self.longest_pause = self.longest_idle = self.slowest_end = 0.0

    def virtual(self, kills: int) -> None:
        """So many kills in virtual time."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            faults, wrong = run_until(kills, Path(folder), Random(self.seed))
        lost, twice = (sum(f": {word}: " in problem for problem in wrong) for word in ("lost", "counted twice"))
        self._count(lost, twice, 0, len(wrong))
        self.faults.update({f"{kind} (virtual)": count for kind, count in faults.items()})
        killed = f"{faults['worker killed']:,} workers and {faults['run killed']:,} runs killed"
        print(f"virtual time: {killed}: {verdict(wrong)}")

    def round(self, data: Path, kinds: list[str]) -> None:
        """One real run."""
        random = Random(f"{self.seed}, round {self.rounds}")
        mode, workers = random.choice(MODES), random.choice((1, 2, 2, 3))
        trial = drawn_trial(random, random.choices(kinds, k=FAULTS_A_RUN), mode, workers)
        ordeal = Ordeal(data, self.folder / f"run-{self.rounds}", trial)
        begin = time.monotonic()
        ordeal.endure()
        self.rounds += 1
        self.faults.update(ordeal.faults)
        self.killed += ordeal.killed
        self.compared += ordeal.compared
        self.stopped += ordeal.stopped
        self._count(ordeal.lost, ordeal.twice, ordeal.hangs, len(ordeal.wrong))
        for name in ("longest_pause", "longest_idle", "slowest_end"):
            setattr(self, name, max(getattr(self, name), getattr(ordeal, name)))
        befell = ", ".join(f"{kind} {count}" for kind, count in ordeal.faults.items() if count)
        seconds = time.monotonic() - begin
        what = f"{mode}, {workers} workers, {ordeal.updates} updates in {seconds:.0f} s; {befell}"
        print(f"round {self.rounds}: {what}: {verdict(ordeal.wrong)}")
        if not ordeal.wrong:
            ordeal.clear()

    def _count(self, lost: int, twice: int, hangs: int, wrong: int) -> None:
        self.lost += lost
        self.twice += twice
        self.hangs += hangs
        self.other += wrong - lost - twice - hangs

    def summary(self) -> bool:
        """Prints what it came to; whether all is well."""
        kinds = {f"  {kind}": f"{count:,}" for kind, count in sorted(self.faults.items()) if count}
        lines: dict[str, object] = {"faults injected": f"{sum(self.faults.values()):,}", **kinds} | {
            "runs that stopped themselves, saved": self.stopped,
            "real processes killed": self.killed,
            "real runs": self.rounds,
            "  bit-equal to undisturbed ones": self.compared,
            "batches lost": self.lost,
            "batches counted twice": self.twice,
            "hangs": self.hangs,
            "anything else wrong": self.other,
            "longest pause": f"{self.longest_pause:.1f} s (at most {self.longest_idle:.1f} s with nobody computing)",
            "slowest end": f"{self.slowest_end:.1f} s after its signal",
        }
        print("\n" + "\n".join(f"{name:<44}{value}" for name, value in lines.items()))
        return not (self.lost or self.twice or self.hangs or self.other)


def verdict(wrong: list[str]) -> str:
    """In words."""
    return "all well" if not wrong else "WRONG:\n  " + "\n  ".join(wrong)


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if all is well."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__, usage="make soak ARGS='[OPTION ...]'")
    parser.add_argument("--minutes", type=float, default=60.0, help="no real run begins after so long (default: 60)")
    parser.add_argument("--kills", type=int, help="nor after so many kills of real processes; then nothing but kills")
    parser.add_argument("--virtual-kills", type=int, default=1000, help="kills in virtual time (default: 1000)")
    parser.add_argument("--seed", type=int, help="of an earlier soak, to repeat it")
    given = parser.parse_args(arguments)
    seed = fault_seed() if given.seed is None else given.seed
    torch.set_num_threads(1)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs have it ignored, and theirs too
    print(f"soak with seed {seed}; the same faults again: make soak ARGS='--seed {seed}'")
    end = time.monotonic() + 60 * given.minutes
    folder = Path(tempfile.mkdtemp(prefix="nmt-async-soak-"))
    soak = Soak(seed, folder)
    try:
        if given.virtual_kills:
            soak.virtual(given.virtual_kills)
        data = prepare_small(folder)
        kinds = sorted(KILLS) if given.kills else sorted(STRIKES.keys() | DAMAGES.keys())
        while time.monotonic() < end and not (given.kills and soak.killed >= given.kills):
            soak.round(data, kinds)
    except KeyboardInterrupt:
        print("interrupted")
    good = soak.summary()
    if not good:
        print(f"The runs that went wrong are kept in {folder}.")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs have it ignored, and theirs too
    sys.exit(main())
