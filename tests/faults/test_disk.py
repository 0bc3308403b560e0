"""The disk of a run fills up, becomes read-only, or its folder vanishes; training goes on, and saves when it can."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import PATIENCE, Witness, ledger_at_end, small_options

from nmt_async.checkpoints.training_state import checkpoint_damages
from nmt_async.errors import RunFailure
from nmt_async.training.interruptions import Interrupted
from nmt_async.training.trainer import train_run

VIRTUAL = {"cluster": "simulated", "workers": 2, "save_freq": "2", "disp_freq": "1", "stop_after": "100k"}
Step = tuple[Callable[[Witness], object], Callable[[], object]]


class Script(Witness):
    """Does something whenever what it waits for has come; after the last, the run is told to end.

    Args:
        steps: what to wait for, and what to do then.
    """

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = [*steps]

    def progress(self, share: float | None, update: int) -> None:
        super().progress(share, update)
        assert update < 20_000, f"waited in vain; warned of {self.warnings}"
        if self.steps and self.steps[0][0](self):
            self.steps.pop(0)[1]()
            if not self.steps:
                os.kill(os.getpid(), signal.SIGTERM)


def play(data: Path, run: Path, *steps: Step) -> Script:
    """A run through all steps, ended and saved."""
    script = Script(*steps)
    with pytest.raises(Interrupted):
        train_run(small_options(run, **VIRTUAL), data, script)
    return script


def has_saved(run: Path) -> Callable[[Witness], bool]:
    return lambda _: (run / "last").exists()


def has_warned(*beginnings: str) -> Callable[[Witness], bool]:
    return lambda witness: all(any(text.startswith(begin) for text in witness.warnings) for begin in beginnings)


def has_said(text: str) -> Callable[[Witness], bool]:
    return lambda witness: text in witness.said


def nothing() -> None:
    """What is waited for is enough."""


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(1000))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def full_then_read_only(data: Path, run: Path) -> None:
    """In a file system of this process alone; prints what was said."""
    saved, ballast = run / "checkpoints", run.parent / "ballast"

    def seal() -> None:
        mount("--bind", str(saved), str(saved))
        mount("-o", "remount,bind,ro", str(saved))

    script = play(
        data,
        run,
        (has_saved(run), lambda: fill(ballast)),
        (has_warned("writing a checkpoint failed", "writing the journal failed"), ballast.unlink),
        (has_said("writing a checkpoint works again."), seal),
        (
            lambda witness: "ead-only file system" in witness.warnings[-1],
            lambda: subprocess.run(["umount", str(saved)]),
        ),
        (lambda witness: witness.said.count("writing a checkpoint works again.") == 2, nothing),
    )
    assert not checkpoint_damages(run / (run / "last").read_text().strip())
    assert ledger_at_end(run, data).accumulated == {}
    assert not list(saved.glob("*.partial"))
    print(json.dumps(script.warnings))


ALONE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def may_mount() -> bool:
    """Whether file systems of our own are allowed here."""
    try:
        return subprocess.run([*ALONE, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_mount(), reason="this system does not let us mount a small disk (unshare, tmpfs)")
def test_a_disk_that_fills_up_and_one_that_turns_read_only_cost_no_run(small_data: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib, test_disk; test_disk.full_then_read_only(*map(pathlib.Path, sys.argv[1:]))"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [*ALONE, 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"', str(tmp_path), sys.executable, "-c", code,
         str(small_data), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)}, capture_output=True, text=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = json.loads(done.stdout)
    full = next(text for text in warnings if text.startswith("writing a checkpoint failed"))
    assert "o space left on device" in full
    assert "; it needs 0." in full
    assert " MiB are free; it is tried again in 10 seconds or with the next one; step-" in full
    assert full.endswith(" stays the last good checkpoint; training goes on.")
    assert warnings[-1].startswith("writing a checkpoint failed (")
    assert "Read-only file system" in warnings[-1]


def test_a_folder_that_vanishes_for_a_while_is_not_made_anew(small_data: Path, tmp_path: Path) -> None:
    run, aside = tmp_path / "run", tmp_path / "aside"
    failed = ("writing a checkpoint failed", "finding the run's folder failed")

    def put_another() -> None:
        assert not run.exists()
        run.mkdir()

    def put_back() -> None:
        run.rmdir()  # only an empty folder can be removed so
        aside.rename(run)

    seen = 0

    def some_updates_later(_: Witness) -> bool:
        nonlocal seen
        seen += 1
        return seen > 20

    script = play(
        small_data,
        run,
        (has_saved(run), lambda: run.rename(aside)),
        (has_warned(*failed), put_another),
        (some_updates_later, put_back),
        (has_said("writing a checkpoint works again."), nothing),
        (has_said("finding the run's folder works again."), nothing),
    )
    told = {warning for warning in script.warnings if warning.startswith(failed)}
    assert told == {
        f"finding the run's folder failed ({run} has vanished); nothing of the run is kept unless it is put back; "
        f"training goes on.",
        f"writing a checkpoint failed ({run}/checkpoints has vanished); it is tried again in 10 seconds or with the "
        f"next one; training goes on.",
    }
    assert not checkpoint_damages(run / (run / "last").read_text().strip())
    assert ledger_at_end(run, small_data).accumulated == {}


@pytest.mark.parametrize("what", ["the run", "its checkpoints"])
def test_a_folder_that_is_gone_for_good_is_told_at_the_end(small_data: Path, tmp_path: Path, what: str) -> None:
    run = tmp_path / "run"
    lost = run if what == "the run" else run / "checkpoints"

    def remove() -> None:
        lost.rename(tmp_path / "lost")
        shutil.rmtree(tmp_path / "lost", ignore_errors=True)

    script = Script((has_saved(run), remove))
    with pytest.raises(RunFailure, match=rf"the last checkpoint could not be written \({run}/checkpoints has vanished"):
        train_run(small_options(run, **VIRTUAL), small_data, script)
    assert not lost.exists()
