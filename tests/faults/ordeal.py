"""A real run goes through faults drawn from a seed; when it has come to its end, what it left is looked at."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from strikes import DAMAGES, ENDING, KILLS, STRIKES, Fault, newest_checkpoint
from training_runs import events_of, ledger_at_end, replayed, run_small, saved_state, small_options
from watched import Hang, WatchedRun

from nmt_async.errors import RunFailure, UserError
from nmt_async.planning.modes import mode_options
from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import RECORD_BYTES, Event, Kind
from nmt_async.sync.ledger import Ledger, ledger_of
from nmt_async.text.prepared import PreparedData
from nmt_async.training.interruptions import Interrupted
from nmt_async.training.journal_file import JOURNAL
from nmt_async.training.parts import training_plan

MODES = (
    "sync", "sync:2", "async", "hybrid:3", "local:2", "async+oldest:0", "hybrid:2+oldest:0+restart",
    "async+oldest:1+restart", "hybrid:2+staleness:1", "hybrid:3+staleness:0",
    "sync:2+fastest:1", "sync:2+fastest:1+restart", "sync:3+balance", "adaptive", "adaptive+oldest:0",
    "adaptive+oldest:1+restart",
)  # fmt: skip

PUSHES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"push_dtype": "bfloat16"},
    {"drop_gradients": 0.99},
    {"drop_gradients": 0.9, "push_dtype": "bfloat16"},
    {"local_accumulate": 2, "local_optimizer": "adam"},
)
"""Options of what crosses; plain ones more often, since only they make a synchronous run one that can be compared."""

STEPS: tuple[dict[str, Any], ...] = (
    {}, {"weight_prediction": "none"}, {"optimizer": "adam", "weight_prediction": "none"}, {"optimizer": "adan"},
)  # fmt: skip
"""Options of what an update does, and of what workers compute on."""

STOPPED_ITSELF = ("times in a row", "had to be set aside", "could not be written")
"""What a run says that was given too much: it is saved, and goes on when it is started again."""

FAR = 500
"""Records of the journal that are too many after a signal."""


@dataclass(frozen=True)
class Trial:
    """A run and everything that will befall it."""

    options: dict[str, Any]
    faults: tuple[Fault, ...]


def drawn_trial(random: Random, kinds: Sequence[str], mode: str, workers: int) -> Trial:
    """A run of that mode through faults of ``kinds``, at random moments."""
    named = {name.replace("-", "_"): value for name, value in mode_options(mode).items()}
    options = {
        **named, "workers": workers, "seed": random.randrange(1000), "save_freq": str(random.randint(1, 6)),
        "keep_last": 3, "disp_freq": "3", "valid_freq": random.choice(("1M", str(random.randint(3, 20)))),
        "valid_sentences": 2, "exponential_smoothing": 0.01, **random.choice(PUSHES), **random.choice(STEPS),
    }  # fmt: skip
    faults = tuple(
        Fault(
            kind,
            records=random.choice((0, 0, 10, 40, random.randint(1, 150))),
            delay=random.choice((random.uniform(0, 0.05), random.uniform(0, 1), random.uniform(0, 4))),
            which=random.random(),
            lasting=random.uniform(0.2, 3.0),
        )
        for kind in kinds
    )
    return Trial(options, faults)


def updates_of(events: Sequence[Event]) -> list[int]:
    """How many pushes each update sums."""
    sizes, pushes = [], 0
    for event in events:
        if event.kind is Kind.UPDATED:
            sizes.append(pushes)
        pushes = 0 if event.kind is Kind.UPDATED else pushes + (event.kind is Kind.ACCUMULATED)
    return sizes


@dataclass
class Ordeal:
    """A run that goes through a trial, to its end.

    Args:
        data: the prepared folder.
        out: the run's.
        trial: what befalls it.

    Attributes:
        faults: that were injected, by kind.
        killed: processes, workers and parents.
        wrong: what should not be; the other counts are part of it.
        lost, twice: batches.
        hangs: times that nothing came for too long.
        longest_pause, longest_idle: seconds; see `WatchedRun`.
        slowest_end: seconds from a signal to the run's end, saved.
        updates: that the run made in the end.
        stopped: times that it saw no use in going on, and saved itself.
        compared: whether nothing but time was lost, so that the run had to be, and is, bit-equal to one that nothing
            befell.
    """

    data: Path
    out: Path
    trial: Trial
    faults: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    twice: int = 0
    hangs: int = 0
    longest_pause: float = 0.0
    longest_idle: float = 0.0
    slowest_end: float = 0.0
    updates: int = 0
    stopped: int = 0
    compared: bool = False
    _run: WatchedRun | None = None

    def endure(self) -> None:
        """Lets everything happen, then the run come to the end of the epoch it is in; looks at what it left."""
        try:
            for fault in self.trial.faults:
                self._befall(fault)
            if self._run is not None:
                self._befall(Fault("run SIGTERM", 20, 0.0, 0.0, 0.0))
            epochs = self._epochs_begun()
            self._run = self._start(f"{epochs}e")
            self._run.until(lambda: False)
            self._ended("")
            self._examine(epochs)
        except Hang as hang:
            self.hangs += 1
            self.wrong.append(f"hang: {hang}")
        except Interrupted:  # whoever started this wants it to end: the signal came while a run was in this process
            raise KeyboardInterrupt from None
        except (RunFailure, UserError, ValueError) as problem:  # from what reads the run, or makes it happen again
            self.wrong.append(str(problem))
        finally:
            if self._run is not None:
                self._run.end()

    def _start(self, stop_after: str) -> WatchedRun:
        return WatchedRun(self.data, self.out, **self.trial.options, stop_after=stop_after)

    def _can_be_damaged(self) -> bool:
        return bool(newest_checkpoint(self.out))

    def _befall(self, fault: Fault, once: Callable[[], object] = lambda: True) -> None:
        if fault.kind in DAMAGES:
            self._befall(Fault("run SIGKILL", fault.records, fault.delay, 0.0, 0.0), self._can_be_damaged)
            self.faults[fault.kind] += bool(DAMAGES[fault.kind](self.out, fault))
            return
        run = self._run = self._run or self._start("1000e")
        enough = run.size() + fault.records * RECORD_BYTES
        meets = run.workers if "worker" in fault.kind else once
        if run.until(lambda: run.size() >= enough and meets()) and run.passed(fault.delay):
            hit = STRIKES[fault.kind](run, fault)
            self.faults[fault.kind] += bool(hit)
            self.killed += hit if fault.kind in KILLS else 0
        if fault.kind in ENDING:
            struck, far = time.monotonic(), run.size() + FAR * RECORD_BYTES
            if run.until(lambda: run.size() > far):
                self.wrong.append(f"{fault.kind}: the run went on as if nothing had happened")
                run.send(signal.SIGKILL)
                run.process.wait()
            self.slowest_end = max(self.slowest_end, time.monotonic() - struck)
        if run.ended:
            self._ended(fault.kind)

    def _ended(self, kind: str) -> None:
        """Judges how the run ended when a fault of that kind befell it; empty: none did."""
        run, self._run = self._run, None
        assert run is not None
        code, said, number = run.process.wait(), run.said(), ENDING.get(kind, 0)
        # A signal that comes before training has begun does what it always does: there is nothing to save.
        good = {-number, 128 + number} if number else set() if kind else {0}
        if kind and code == 1 and any(phrase in said for phrase in STOPPED_ITSELF):
            self.stopped += 1
        elif code not in good or (not kind and "Traceback" in said):
            self.wrong.append(f"{kind or 'no fault'}, exit code {code}: {said[-1500:]}")
        self.wrong += [f"left behind: {what}" for what in run.left_behind()]
        self.longest_pause = max(self.longest_pause, run.longest_pause)
        self.longest_idle = max(self.longest_idle, run.longest_idle)

    def _epochs_begun(self) -> int:
        if not (self.out / JOURNAL).exists():
            return 1
        return ledger_of(events_of(self.out)).position.epoch

    def _examine(self, epochs: int) -> None:
        """Every batch of the epochs is counted once, the parameters are those of the journal, all files are whole."""
        found = ledger_at_end(self.out, self.data)
        plan = training_plan(small_options(self.out, **self.trial.options), PreparedData.open(self.data))
        whole = sum(len(plan.epoch(epoch)) for epoch in range(1, epochs + 1))
        missing = whole - found.applied - len(found.set_aside)
        self.lost, self.twice = max(0, missing), max(0, -missing)
        self.wrong += [f"{self.lost} batches lost"] * bool(self.lost)
        self.wrong += [f"{self.twice} batches counted twice"] * bool(self.twice)
        if not torch.equal(replayed(self.out, self.data), saved_state(self.out)["parameters"]):
            self.wrong.append("the journal leads to other parameters")
        self.wrong += [f"half written: {path}" for path in self.out.rglob("*.partial")]
        self._compare(found, epochs)
        updates = [line["update"] for line in read_json_lines(self.out / "metrics.jsonl") if line["kind"] == "train"]
        if updates != sorted(set(updates)):
            self.wrong.append(f"metrics.jsonl reports updates {updates}")

    def _compare(self, found: Ledger, epochs: int) -> None:
        """Where the order of pushes is determined, the run is bit-equal to one that nothing befell.

        But the sum of a batch's pieces, which a worker without memory computes, is rounded otherwise than the batch's;
        and what a push leaves behind is added to the next of the same worker, whichever batch that is.
        """
        options = self.trial.options
        self.updates = found.version
        whole = not small_options(self.out, **options).push_settings().compressed
        ordered = options["sync_mode"] == "sync" and "fastest" not in options
        determined = options["workers"] == 1 or (ordered and whole)
        in_pieces = "sums the pieces" in (self.out / "train.log").read_text()
        if not determined or in_pieces or found.set_aside:
            return
        straight = self.out.with_name(self.out.name + "-straight")
        run_small(
            self.data,
            straight,
            **{**options, "valid_freq": "1M", "save_freq": "1M", "valid_translate": True},
            stop_after=f"{epochs}e",
        )
        one, other = saved_state(straight), saved_state(self.out)
        self.wrong += [f"{name} is not that of an uninterrupted run" for name, tensor in one.items()
                       if not torch.equal(tensor, other[name])]  # fmt: skip
        self.compared = True
        shutil.rmtree(straight, ignore_errors=True)

    def clear(self) -> None:
        """Removes the run."""
        shutil.rmtree(self.out, ignore_errors=True)
