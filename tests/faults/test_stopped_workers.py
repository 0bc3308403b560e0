"""A worker's process is stopped: the others go on or say for whom they wait, and it comes back or is replaced."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest
from striking import assert_whole, deaths, send, silences
from training_runs import events_of, run_small, until

from nmt_async.cluster import silence
from nmt_async.sync.journal import Event, Kind
from nmt_async.training.options import time_quantity


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is spoken of after seconds, not after a minute."""
    monkeypatch.setattr(silence, "LEAST_SECONDS", 3.0)


def updates_before(events: list[Event], place: int) -> int:
    return sum(event.kind is Kind.UPDATED for event in events[:place])


@pytest.mark.parametrize("mode", [{"sync_mode": "async"}, {"sync_mode": "hybrid", "accumulate": 2}], ids=str)
def test_the_others_go_on_and_its_old_push_counts_when_it_goes_on(
    mode: dict[str, object], small_data: Path, tmp_path: Path
) -> None:
    stopped, continued = 3, 9
    acts = {stopped: lambda: send(0, signal.SIGSTOP), continued: lambda: send(0, signal.SIGCONT)}
    witness = run_small(small_data, tmp_path / "run", acts, **mode, stop_after="1e")
    assert deaths(witness) == []
    assert_whole(tmp_path / "run", small_data, 1)
    events = events_of(tmp_path / "run")
    late = [
        event.version
        for place, event in enumerate(events)
        if event.kind is Kind.ACCUMULATED and event.worker == 0 and updates_before(events, place) >= continued
    ]
    assert late
    assert late[0] <= stopped + 1  # its push before may have been on its way


def test_one_that_stays_silent_is_replaced_and_the_run_reaches_its_end(small_data: Path, tmp_path: Path) -> None:
    pids: list[int | None] = []
    acts = {3: lambda: pids.append(send(0, signal.SIGSTOP))}
    witness = run_small(
        small_data, tmp_path / "run", acts, sync_mode="async", worker_timeout=time_quantity("0.05min"), stop_after="1e"
    )
    assert_whole(tmp_path / "run", small_data, 1)
    told = next(told for told in silences(witness, 0) if "at batch" in told)
    assert re.fullmatch(
        rf"nothing has been heard of worker 0 \(process {pids[0]}\) for \d+ s, at batch \d+ of epoch 1 since "
        rf"\d\d:\d\d:\d\d; (others wait for it; )?its process is stopped, kill -CONT {pids[0]} lets it go on; "
        rf"it is replaced after \d+ s; the log has the workers' stacks\.",
        told,
    )
    death = next(death for death in deaths(witness) if death.startswith("worker 0 "))
    assert re.match(r"worker 0 died at batch \d+ of epoch 1 \(no sign of it for \d+ s\); a new one", death)
    (batch,) = re.findall(r"at batch (\d+) ", death)
    assert f"at batch {batch} " in told


@pytest.mark.usefixtures("soon")
def test_sync_says_for_whom_it_waits_and_goes_on_with_it(small_data: Path, tmp_path: Path) -> None:
    run, log, pids = tmp_path / "run", tmp_path / "run" / "train.log", []

    def release() -> None:
        until(lambda: "does not answer: its process is stopped" in log.read_text(), "the watchdog")
        send(1, signal.SIGCONT)

    helper = threading.Thread(target=release)
    acts = {3: lambda: (pids.append(send(1, signal.SIGSTOP)), helper.start())}
    witness = run_small(small_data, run, acts, sync_mode="sync", stop_after="1e")
    helper.join()
    assert_whole(run, small_data, 1)
    assert deaths(witness) == []
    (told,) = [told for told in silences(witness, 1) if "at batch" in told]
    assert f"worker 1 (process {pids[0]}) for " in told
    assert "; others wait for it; its process is stopped, " in told
    said = log.read_text()
    assert f"[stack] worker 1 (process {pids[0]}) does not answer: its process is stopped" in said
    other = said.partition("[stack] worker 0 (process ")[2]
    assert re.search(r"connection.py.* in recv\n.*worker_process.py.* in run_worker\n", other)
    assert re.search(r"\[watchdog\] worker 1 is heard again, after \d+ s", said)
