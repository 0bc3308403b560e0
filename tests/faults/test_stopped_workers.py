"""A worker's or the validation's process is stopped: the run goes on or says for whom it waits, and reaches its end."""

from __future__ import annotations

import os
import re
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
from striking import assert_whole, deaths, send, silences
from training_runs import children_named, events_of, run_small, until

from nmt_async.process import watchdog
from nmt_async.sync.journal import Kind
from nmt_async.training.cluster_options import time_quantity


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is spoken of after seconds, not after a minute."""
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 3.0)


class Stop:
    """Stops worker 0 once it has delivered its first push, and lets it go on some updates later, or never."""

    def __init__(self, run: Path, lasts: int | None = None) -> None:
        self.run = run
        self.lasts = lasts
        self.stopped = 0
        self.pid: int | None = None
        self.acts = {update: partial(self._act, update) for update in range(1, 60)}

    def _act(self, update: int) -> None:
        if not self.stopped and any(
            event.kind is Kind.ACCUMULATED and event.worker == 0 for event in events_of(self.run)
        ):
            self.stopped = update
            self.pid = send(0, signal.SIGSTOP)
        elif self.lasts and update == self.stopped + self.lasts:
            send(0, signal.SIGCONT)


@pytest.mark.parametrize("mode", [{"sync_mode": "async"}, {"sync_mode": "hybrid", "accumulate": 2}], ids=str)
def test_the_others_go_on_and_its_old_push_counts_when_it_goes_on(
    mode: dict[str, object], training_data: Path, tmp_path: Path
) -> None:
    stop = Stop(tmp_path / "run", lasts=4)
    witness = run_small(training_data, tmp_path / "run", stop.acts, **mode, stop_after="2e")
    assert deaths(witness) == []
    assert_whole(tmp_path / "run", training_data, 2)
    version, late = 0, []
    for event in events_of(tmp_path / "run"):
        version = event.version if event.kind is Kind.UPDATED else version
        if event.kind is Kind.ACCUMULATED and event.worker == 0 and version >= stop.stopped + 4:
            late.append(event.version)
    assert stop.pid
    assert late
    assert late[0] <= stop.stopped + 1  # its push before may have been on its way


def test_one_that_stays_silent_is_replaced_and_the_run_reaches_its_end(training_data: Path, tmp_path: Path) -> None:
    stop = Stop(tmp_path / "run")
    timeout = time_quantity("0.05min")
    witness = run_small(
        training_data, tmp_path / "run", stop.acts, sync_mode="async", worker_timeout=timeout, stop_after="2e"
    )
    assert_whole(tmp_path / "run", training_data, 2)
    told = next(told for told in silences(witness, 0) if f"(process {stop.pid})" in told)
    assert re.fullmatch(
        rf"nothing has been heard of worker 0 \(process {stop.pid}\) for \d+ s, at batch \d+ of epoch \d since "
        rf"\d\d:\d\d:\d\d; (others wait for it; )?its process is stopped, kill -CONT {stop.pid} lets it go on; "
        rf"it is replaced after \d+ s; train\.log has the stacks\.",
        told,
    )
    batch = re.findall(r"at batch \d+ of epoch \d", told)[0]
    death = next(death for death in deaths(witness) if batch in death)
    assert re.match(rf"worker 0 died {batch} \(no sign of it for \d+ s\); a new one", death)


@pytest.mark.usefixtures("soon")
def test_sync_says_for_whom_it_waits_and_goes_on_with_it(training_data: Path, tmp_path: Path) -> None:
    run, log, pids = tmp_path / "run", tmp_path / "run" / "train.log", []

    def release() -> None:
        until(lambda: "does not answer: its process is stopped" in log.read_text(), "the watchdog")
        send(1, signal.SIGCONT)

    helper = threading.Thread(target=release)
    acts = {3: lambda: (pids.append(send(1, signal.SIGSTOP)), helper.start())}
    witness = run_small(training_data, run, acts, sync_mode="sync", stop_after="1e")
    helper.join()
    assert_whole(run, training_data, 1)
    assert deaths(witness) == []
    (told,) = [told for told in silences(witness, 1) if "at batch" in told]
    assert f"worker 1 (process {pids[0]}) for " in told
    assert "; others wait for it; its process is stopped, " in told
    said = log.read_text()
    assert f"[stack] worker 1 (process {pids[0]}) does not answer: its process is stopped" in said
    other = said.partition("[stack] worker 0 (process ")[2]
    assert re.search(r"connection.py.* in recv\n.*worker.py.* in run_worker\n", other)
    assert re.search(r"\[watchdog\] worker 1 is heard again, after \d+ s", said)


@pytest.mark.parametrize(("update", "last"), [(4, 9), (9, 9)], ids=["on the way", "at the end"])
def test_a_validation_that_stays_silent_is_given_up_and_the_run_reaches_its_end(
    update: int, last: int, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(watchdog, "STARTING_SECONDS", 6.0)
    run, pids = tmp_path / "run", []

    def stop() -> None:
        """Once the child of that update's validation is there."""
        until(lambda: children_named("validation"), "the validation")
        (child,) = children_named("validation")
        os.kill(child.pid, signal.SIGSTOP)
        pids.append(child.pid)

    stopper = threading.Thread(target=stop)
    # The next one, if there is one, is made as ever.
    witness = run_small(
        small_data, run, {update: stopper.start}, workers=1, accumulate=1, worker_timeout=time_quantity("0.1min"),
        valid_freq=str(update), stop_after=str(last),
    )  # fmt: skip
    stopper.join()
    (told,) = [told for told in witness.warnings if "nothing has been heard of validation" in told]
    assert re.fullmatch(
        rf"nothing has been heard of validation \(process {pids[0]}\) for \d+ s, at the validation of update {update} "
        rf"since \d\d:\d\d:\d\d; its process is stopped, kill -CONT {pids[0]} lets it go on; it is replaced after "
        rf"\d+ s; train\.log has the stacks\.",
        told,
    )
    (failed,) = [warning for warning in witness.warnings if "training goes on" in warning]
    assert failed.startswith(f"the validation of update {update} failed (no sign of it for ")
    assert f"[stack] validation (process {pids[0]}) does not answer" in (run / "train.log").read_text()
    assert (run / "last").read_text() == f"checkpoints/step-{last}\n"
