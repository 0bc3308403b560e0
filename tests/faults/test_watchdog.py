"""A worker that hangs tells where, in the log, while it hangs; the others are asked too."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
from striking import assert_whole, deaths, pid_of, send, silences
from training_runs import prepare_small, run_small, until

from nmt_async.process import watchdog
from nmt_async.text.prepared import MANIFEST, TARGET_MODEL


def test_a_worker_that_hangs_in_its_data_tells_where_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO in place of a file stands for a disk that does not answer for a while; sync waits for the worker."""
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 1.0)
    data, run = (
        prepare_small(tmp_path, vocab_size=300, separate_vocabs=True, valid_source=(), valid_target=()),
        tmp_path / "run",
    )
    log, model = run / "train.log", data / TARGET_MODEL
    content = model.read_bytes()
    manifest = json.loads((data / MANIFEST).read_text())
    del manifest["files"][model.name]  # so that it need not be an ordinary file
    (data / MANIFEST).write_text(json.dumps(manifest))

    def answer() -> None:
        until(lambda: "in read_bytes\n" in log.read_text(), "the stack of the worker that hangs")
        with model.open("wb") as file:
            model.unlink()
            model.write_bytes(content)
            file.write(content)

    helper = threading.Thread(target=answer)

    def hang() -> None:
        model.unlink()
        os.mkfifo(model)
        send(0, signal.SIGKILL)
        helper.start()

    witness = run_small(data, run, {3: hang}, sync_mode="sync", stop_after="1e")
    helper.join()
    assert_whole(run, data, 1)
    assert len(deaths(witness)) == 1  # the one that was killed
    said = log.read_text()
    stacks = re.findall(r"\[stack\] worker 0 \(process (\d+)\):\nCurrent thread 0x((?s:.)*? in run_worker\n)", said)
    (pid,) = {pid for pid, stack in stacks if " in read_bytes\n" in stack}
    told = next(told for told in silences(witness, 0) if f"(process {pid}) for " in told)
    assert "before it had a batch" in told
    assert "[stack] worker 1 (process " in said
    assert re.search(r"\[watchdog\] worker 0 is heard again, after \d+ s", said)


def test_anyone_may_ask_a_worker_where_it_is(training_data: Path, tmp_path: Path) -> None:
    pids: list[int | None] = []
    run = tmp_path / "run"
    witness = run_small(training_data, run, {3: lambda: pids.append(pid_of(0)) or send(0, signal.SIGUSR1)}, workers=1,
                        stop_after="2e")  # fmt: skip
    assert deaths(witness) == []
    assert re.search(
        rf"\[stack\] worker 0 \(process {pids[0]}\):\n(?s:.)*in run_worker\n", (run / "train.log").read_text()
    )
