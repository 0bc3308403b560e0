"""When a failed save is tried again, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_writer import CheckpointWriter

from nmt_async.sync.journal import Event, Kind
from nmt_async.training.interruptions import MayFail
from nmt_async.training.saving import FIRST_PAUSE, LONGEST_PAUSE, Saving, Soundness, StateOfRun


class Sitting:
    """Saves of a run whose folder can be taken away, at times that the test sets."""

    def __init__(self, run: Path, data: Path) -> None:
        self.writer = CheckpointWriter(run, data)
        self.now = 0.0
        self.warned: list[str] = []
        self.said: list[str] = []
        may_fail = MayFail(self.warned.append, self.said.append)
        self.saving = Saving(self.writer.checkpoints, may_fail, lambda: self.now)
        self.folder, self.aside = run / "checkpoints", run / "aside"

    def take_away(self) -> None:
        self.folder.rename(self.aside)

    def put_back(self) -> None:
        self.aside.rename(self.folder)

    def save(self, step: int) -> None:
        vector = self.writer.vector(step)
        self.saving.begin(StateOfRun(step, {"step": step}, {"parameters": vector}, vector), [])
        self.hear()

    def hear(self, best: list[int] | None = None) -> None:
        self.writer.checkpoints.settle()
        self.saving.hear(best or [])


@pytest.fixture
def sitting(small_data: Path, tmp_path: Path) -> Sitting:
    return Sitting(tmp_path / "run", small_data)


def test_a_failed_checkpoint_is_due_again_after_pauses_that_double(sitting: Sitting) -> None:
    sitting.save(1)
    assert not sitting.saving.due
    sitting.take_away()
    pause = FIRST_PAUSE
    for step in range(2, 10):
        sitting.save(step)
        sitting.now += pause - 1
        assert not sitting.saving.due
        sitting.now += 1
        assert sitting.saving.due
        pause = min(2 * pause, LONGEST_PAUSE)
    (warning,) = sitting.warned
    assert warning.startswith(f"writing a checkpoint failed ({sitting.folder} has vanished); it is tried again in 10 s")
    sitting.put_back()
    sitting.save(10)
    assert sitting.said == ["writing a checkpoint works again."]
    assert not sitting.saving.due
    assert sitting.writer.names == ["step-1", "step-10"]
    sitting.take_away()
    sitting.save(11)
    sitting.now += FIRST_PAUSE
    assert sitting.saving.due


def test_a_best_model_that_could_not_be_saved_is_saved_later(sitting: Sitting) -> None:
    sitting.take_away()
    for step in (1, 2):
        sitting.saving.keep(step, sitting.writer.vector(step), [step])
        sitting.hear([step])
    assert len(sitting.warned) == 1
    sitting.put_back()
    sitting.hear([2])
    assert sitting.writer.names == []
    sitting.now += LONGEST_PAUSE
    sitting.hear([2])
    sitting.hear([2])
    assert sitting.said == ["saving a best model works again."]
    assert sitting.writer.names == ["best-2"]
    assert (sitting.writer.run / "best").read_text() == "checkpoints/best-2\n"


def test_at_the_end_a_model_that_could_not_be_saved_is_tried_once_more(sitting: Sitting) -> None:
    sitting.take_away()
    sitting.saving.keep(3, sitting.writer.vector(3), [3])
    sitting.hear([3])
    sitting.put_back()
    sitting.saving.settle([3])
    assert sitting.writer.names == ["best-3"]


def test_the_last_checkpoint_that_fails_is_an_error(sitting: Sitting) -> None:
    sitting.take_away()
    vector = sitting.writer.vector(1)
    sitting.saving.begin(StateOfRun(1, {}, {"parameters": vector}, vector), [])
    with pytest.raises(OSError, match="has vanished"):
        sitting.saving.result()


def test_a_disk_with_too_little_room_is_told_with_what_it_needs(sitting: Sitting) -> None:
    sitting.save(1)
    (sitting.folder / "step-2.partial").write_text("a file where a folder is to be made")
    sitting.save(2)
    (warning,) = sitting.warned
    assert "; it needs 0." in warning
    assert " MiB are free; it is tried again in 10 seconds or with the next one; step-1 stays the last good" in warning


def test_parameters_are_sound_by_the_newest_gradients_whatever_slow_workers_deliver_later() -> None:
    soundness = Soundness()
    assert soundness.sound
    for kind, version, sound in [
        (Kind.ACCUMULATED, 4, True), (Kind.NOT_FINITE, 6, False), (Kind.NOT_FINITE, 2, False),
        (Kind.ACCUMULATED, 5, False), (Kind.REFUSED, 8, False), (Kind.ACCUMULATED, 7, True), (Kind.NOT_FINITE, 6, True),
    ]:  # fmt: skip
        soundness.record(Event(kind, version=version))
        assert soundness.sound == sound
